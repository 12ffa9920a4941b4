"""Description of a checkpoint's content: shapes and checksums of its arrays, validation metrics.

Orbax stores it in the checkpoint's metadata file. This module reads that file directly, because
Orbax treats a file that cannot be opened like an empty one.
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

NAMED = 5  # Maximum number of arrays that a message names.


def describe(state: Any, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Returns a checkpoint's shapes, checksums and metrics with their own checksums, for JSON."""
    arrays = {"shapes": shapes(state), "crc32": checksums(state)}
    finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    return {
        "arrays": arrays,
        "crc32": _checksum(arrays),
        "metrics": finite,
        "metrics_crc32": _checksum(finite),
    }


def read_arrays(folder: Path) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Reads the shapes and the checksums of a checkpoint's arrays, each by the array's path.

    Raises:
        CorruptCheckpointError: The metadata file cannot be decoded or fails its checksum.
        OSError: The metadata file cannot be read.
    """
    arrays = _read(folder, "arrays", "crc32")
    return arrays["shapes"], arrays["crc32"]


def read_metrics(folder: Path) -> dict[str, float]:
    """Reads a checkpoint's validation metrics.

    The result is empty if there are none, as in checkpoints of earlier versions.

    Raises:
        CorruptCheckpointError: The metadata file cannot be decoded or fails its checksum.
        OSError: The metadata file cannot be read.
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
    """Computes the CRC-32 of each array of a tree, by the array's path; waits for the devices."""
    arrays = _by_path(jax.device_get(state))
    return {
        path: zlib.crc32(np.ascontiguousarray(x).view(np.uint8).data) for path, x in arrays.items()
    }


def compare(found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Compares the checksums of arrays.

    Raises:
        CorruptCheckpointError: Some checksums differ. The message names the arrays.
    """
    wrong = [path for path, checksum in found.items() if checksum != expected[path]]
    if wrong:
        raise CorruptCheckpointError(f"arrays fail their checksum: {first_few(wrong)}")


def differences(saved: Mapping[str, list], asked: Mapping[str, list]) -> list[str]:
    """Describes each array whose shape in a checkpoint differs from the shape that a config needs.

    Both arguments map the paths of arrays to their shapes.
    """
    return [
        f"{path} is {saved.get(path, 'missing')} where the config asks for "
        f"{asked.get(path, 'no such array')}"
        for path in sorted(saved.keys() | asked.keys())
        if saved.get(path) != asked.get(path)
    ]


def shapes(tree: Any) -> dict[str, list[int]]:
    """Returns the shape of each array of a tree, by the array's path."""
    return {path: list(x.shape) for path, x in _by_path(tree).items()}


def first_few(items: Sequence[str]) -> str:
    """Joins the first items of a list and appends the number of further items."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def _checksum(record: Any) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
