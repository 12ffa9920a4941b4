"""The parent of a model: name and license of the weights that it was derived from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepfill_jax import trained
from deepfill_jax.atomic_write import atomic_write

FILE = "parent.json"  # File in the folder of a run that started from weights.
INHERITED = ("license", "parent")  # Metadata keys that derived models inherit.


def describe(source: str | Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata that a model derived from `source` inherits.

    Args:
        source: See `sources.read`.
        metadata: The metadata of the source.

    Returns:
        "parent" is the name of a published release, of a bundled model, or of a file without its
        folders; for the folder of a run with a parent of its own, it is that parent. "license" is
        the source's license, if it is known.
    """
    path = trained.find(source)
    name = path.resolve().name if path.is_dir() else path.stem
    if metadata.get("release"):
        name = metadata["release"]
    elif path.is_dir() and "parent" in metadata:
        name = metadata["parent"]
    license = metadata.get("license")
    return {"parent": name} | ({"license": license} if license else {})


def write(workdir: str | Path, source: str | Path, metadata: Mapping[str, Any]) -> None:
    """Writes the name and the license of the weights that a run started from, see `describe`."""
    with atomic_write(Path(workdir) / FILE) as unfinished:
        unfinished.write_text(json.dumps(describe(source, metadata), indent=2) + "\n")


def read(workdir: str | Path) -> dict[str, Any]:
    """Reads the file of `write`; empty for a run that started from random initialisation."""
    path = Path(workdir) / FILE
    return json.loads(path.read_text()) if path.is_file() else {}
