"""Published weights, recognised by what is in a file, whatever it is called."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

LICENCES = {
    "generative_inpainting": "CC BY-NC 4.0, as its repository says",
    "MMagic": "Apache-2.0, as its repository says",
}
NO_RELEASE: dict[str, Any] = {"release": None}


class Tf1Release(NamedTuple):
    """Digests of a release's weights, see `digest`."""

    generator: str
    discriminator: str


# Folders of JiahuiYu/generative_inpainting, v2.0.0, made from the names and checksums in their
# `snap-0.index`. Trained for 664,000 and 1,656,000 steps, says the `global_step` in them.
TF1 = {
    "release_celeba_hq_256": Tf1Release(
        "5f57a475181d58c3811617afb888fa28cf920e4cac4d87db0ac954e166856960",
        "aab11745ddb60948f66f5ab49e27e77f9a589306bca1c291ade22310692035e9",
    ),
    "release_places2_256": Tf1Release(
        "e114a7f878e645375e38fd70b4fb69a61e1081ab1d764e541d89935262b50873",
        "26a3959f3689e307e0549d12b70ee3ae86e96ebda032976e74032c4c05ab4c47",
    ),
}

# The first digits of a file's SHA-256, which OpenMMLab writes at the end of its name.
MMAGIC = {
    "c96e5f12": "deepfillv2_256x256_8x2_celeba_20200619",
    "10d15793": "deepfillv2_256x256_8x2_places_20200619",
}


def digest(checksums: Mapping[str, int]) -> str:
    """One number for all: SHA-256 over the lines "name checksum", sorted, in hexadecimal."""
    lines = (f"{name} {checksum:08x}\n" for name, checksum in sorted(checksums.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_tf1(checksums: Mapping[str, int]) -> dict[str, Any]:
    """Which of the TF1 releases weights are, to go into what a model is `about`.

    Args:
        checksums: Masked CRC-32C of the variables `inpaint_net/*` and, if there are, those of
            `discriminator/*`, by name.
    """
    found = Tf1Release(
        *(
            digest({name: x for name, x in checksums.items() if name.startswith(scope)})
            for scope in ("inpaint_net/", "discriminator/")
        )
    )
    for name, release in TF1.items():
        alone = release._replace(discriminator=digest({}))
        if found in (release, alone):
            return {"release": name, "license": LICENCES["generative_inpainting"]}
    return NO_RELEASE


def find_mmagic(path: Path) -> dict[str, Any]:
    """Which of the files that OpenMMLab published a file is, see `find_tf1`."""
    with path.open("rb") as file:
        name = MMAGIC.get(hashlib.file_digest(file, "sha256").hexdigest()[:8])
    return {"release": name, "license": LICENCES["MMagic"]} if name else NO_RELEASE
