"""The model that another one was made from: its name and license, which derived weights keep."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepfill_jax import trained
from deepfill_jax.atomic_write import atomic_write

FILE = "parent.json"  # In the folder of a run that started from weights.
INHERITED = ("license", "parent")  # Keys of a model's metadata.


def describe(source: str | Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a model made from `source` keeps in its own metadata.

    Args:
        source: See `sources.read`.
        metadata: What is known about the source.

    Returns:
        "parent": the name of a published release, of a bundled model, or of a file without its
        folders; a run's folder passes on its own parent, if it has one. "license": the source's,
        if it is known.
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
    """Writes what a run keeps of the weights that it started from, see `describe`."""
    with atomic_write(Path(workdir) / FILE) as unfinished:
        unfinished.write_text(json.dumps(describe(source, metadata), indent=2) + "\n")


def read(workdir: str | Path) -> dict[str, Any]:
    """Reads what `write` wrote; empty for a run that started from random initialisation."""
    path = Path(workdir) / FILE
    return json.loads(path.read_text()) if path.is_file() else {}
