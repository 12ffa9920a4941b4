"""The published weights that have a name."""

import dataclasses
from pathlib import PurePosixPath

MMAGIC_LICENSE = "Apache-2.0, as its repository says"
TF1_LICENSE = "CC BY-NC 4.0, as its repository says"
_MMAGIC = "https://download.openmmlab.com/mmediting/inpainting/deepfillv2"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Weights that are downloaded on first use.

    Attributes:
        url: Where the file was published. Its name ends in the first digits of its SHA-256.
        purpose: What the weights are for.
        license: License of the weights, and the data set whose terms may apply as well.
        megabytes: Approximate size of the file.
    """

    url: str
    purpose: str
    license: str
    megabytes: int = 41

    @property
    def name_and_digits(self) -> tuple[str, str]:
        """The file's name without its suffix, divided into name and digits."""
        name, _, digits = PurePosixPath(self.url).stem.rpartition("-")
        return name, digits


@dataclasses.dataclass(frozen=True)
class ByHand:
    """Weights without a plain URL, which can only be downloaded in a browser.

    Attributes:
        folder: Name of the folder to download.
        purpose: What the weights are for.
        license: License of the weights.
    """

    folder: str
    purpose: str
    license: str = TF1_LICENSE

    def instructions(self, name: str) -> str:
        """Says in two lines what to download, and what to type then."""
        return (
            f"{name} has no plain URL: download the folder {self.folder} by the link in the README "
            "of github.com/JiahuiYu/generative_inpainting (version 2.0.0).\n"
            f"Then give the folder as the model, such as --model {self.folder}, or convert it: "
            f"deepfill convert {self.folder} --output {name.replace('/', '-')}.safetensors"
        )


ENTRIES = {
    "mmagic/places": Entry(
        f"{_MMAGIC}/deepfillv2_256x256_8x2_places_20200619-10d15793.pth",
        "photographs",
        f"{MMAGIC_LICENSE}; trained on Places, which has terms of its own",
    ),
    "mmagic/celeba": Entry(
        f"{_MMAGIC}/deepfillv2_256x256_8x2_celeba_20200619-c96e5f12.pth",
        "portraits",
        f"{MMAGIC_LICENSE}; trained on CelebA, which has terms of its own",
    ),
}
BY_HAND = {
    "tf1/places": ByHand("release_places2_256", "photographs"),
    "tf1/celeba": ByHand("release_celeba_hq_256", "portraits"),
}
