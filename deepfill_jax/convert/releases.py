"""Recognition of published weights by their content, independent of file names."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deepfill_jax.published.registry import ENTRIES, MMAGIC_LICENSE, TF1_LICENSE

NO_RELEASE: dict[str, Any] = {"release": None}


class Tf1Release(NamedTuple):
    """Digests of a release's weights, see `digest`."""

    generator: str
    discriminator: str


# Digests of the names and checksums in `snap-0.index`, by the folder names of
# JiahuiYu/generative_inpainting, v2.0.0. According to the stored `global_step`, the models were
# trained for 664,000 and 1,656,000 steps.
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

# Names of OpenMMLab's files by the first digits of their SHA-256, with which the names end.
MMAGIC = {digits: name for name, digits in (x.name_and_digits for x in ENTRIES.values())}


def digest(checksums: Mapping[str, int]) -> str:
    """Combines checksums: the SHA-256, in hexadecimal, of the sorted lines "name checksum"."""
    lines = (f"{name} {checksum:08x}\n" for name, checksum in sorted(checksums.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_tf1(checksums: Mapping[str, int]) -> dict[str, Any]:
    """Identifies weights of the TF1 release by their checksums.

    Args:
        checksums: Masked CRC-32C of the variables `inpaint_net/*` and, if the checkpoint has them,
            `discriminator/*`, by name.

    Returns:
        Metadata for the model: "release" (None if unknown) and, if known, "license".
    """
    digests = Tf1Release(
        *(
            digest({name: x for name, x in checksums.items() if name.startswith(scope)})
            for scope in ("inpaint_net/", "discriminator/")
        )
    )
    for name, release in TF1.items():
        generator_only = release._replace(discriminator=digest({}))
        if digests in (release, generator_only):
            return {"release": name, "license": TF1_LICENSE}
    return NO_RELEASE


def find_mmagic(path: Path) -> dict[str, Any]:
    """Identifies a file published by OpenMMLab; returns metadata like `find_tf1`."""
    with path.open("rb") as file:
        name = MMAGIC.get(hashlib.file_digest(file, "sha256").hexdigest()[:8])
    return {"release": name, "license": MMAGIC_LICENSE} if name else NO_RELEASE
