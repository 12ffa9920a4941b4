"""What a checkpoint says of itself: shapes and checksums of its arrays, and validation metrics.

Orbax keeps it in the checkpoint's metadata file. It is read without orbax, which takes a file that
cannot be opened for one without content.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepfill_jax.checkpoint.faults import CorruptCheckpointError
from deepfill_jax.checkpoint.record import METADATA

NAMED = 5  # Arrays that a message names.


def describe(state: Any, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Shapes, checksums and metrics of a checkpoint, and a checksum of these, for JSON."""
    arrays = {"shapes": shapes(state), "crc32": checksums(state)}
    finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    return {
        "arrays": arrays,
        "crc32": _checksum(arrays),
        "metrics": finite,
        "metrics_crc32": _checksum(finite),
    }


def read_arrays(folder: Path) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Reads shapes and checksums of a checkpoint's arrays, by their paths.

    Raises:
        CorruptCheckpointError: They are not what was saved.
        OSError: The file cannot be read.
    """
    arrays = _read(folder, "arrays", "crc32")
    return arrays["shapes"], arrays["crc32"]


def read_metrics(folder: Path) -> dict[str, float]:
    """Reads a checkpoint's validation metrics; empty if it has none, as those of earlier versions.

    Raises:
        CorruptCheckpointError: They are not what was saved.
        OSError: The file cannot be read.
    """
    return _read(folder, "metrics", "metrics_crc32", default={})


def _read(folder: Path, key: str, checksum: str, default: Any = None) -> Any:
    try:
        saved = json.loads((folder / METADATA).read_text())["custom_metadata"] or {}
        if key not in saved and default is not None:
            return default
        if _checksum(saved[key]) == saved[checksum]:
            return saved[key]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptCheckpointError(f"{METADATA} cannot be decoded") from error
    raise CorruptCheckpointError(f"the {key} in {METADATA} fail their checksum")


def checksums(state: Any) -> dict[str, int]:
    """CRC-32 of the bytes of each array of a tree, by its path; waits for the devices."""
    arrays = _by_path(jax.device_get(state))
    return {path: zlib.crc32(np.ascontiguousarray(x).view(np.uint8)) for path, x in arrays.items()}


def compare(found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Compares checksums of arrays.

    Raises:
        CorruptCheckpointError: Some differ; it names them.
    """
    wrong = [path for path, checksum in found.items() if checksum != expected[path]]
    if wrong:
        raise CorruptCheckpointError(f"not what was saved: {first_few(wrong)}")


def differences(saved: Mapping[str, list], asked: Mapping[str, list]) -> list[str]:
    """Says of each array what a checkpoint has where a config asks for something else."""
    return [
        f"{path} is {saved.get(path, 'missing')} where the config asks for "
        f"{asked.get(path, 'no such array')}"
        for path in sorted(saved.keys() | asked.keys())
        if saved.get(path) != asked.get(path)
    ]


def shapes(tree: Any) -> dict[str, list[int]]:
    """The shape of each array of a tree, by its path."""
    return {path: list(x.shape) for path, x in _by_path(tree).items()}


def first_few(items: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def _checksum(record: Any) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
