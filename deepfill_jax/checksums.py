"""Checksums of a tree of arrays: whether a checkpoint is what was saved."""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

PyTree = Any

NAMED = 5  # Arrays that a message names.


class CorruptCheckpointError(Exception):
    """A checkpoint is not what was saved."""


def checksums(state: Any) -> dict[str, int]:
    """CRC-32 of the bytes of each array of a tree, by its path; waits for the devices."""
    arrays = _by_path(jax.device_get(state))
    return {path: zlib.crc32(np.ascontiguousarray(x).view(np.uint8)) for path, x in arrays.items()}


def describe(state: PyTree) -> dict[str, Any]:
    """Shapes and checksums of a state's arrays, and a checksum of these, for JSON."""
    arrays = {"shapes": shapes(state), "crc32": checksums(state)}
    return {"arrays": arrays, "crc32": checksum(arrays)}


def checksum(record: Any) -> int:
    """CRC-32 of a JSON value."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def compare(found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raises CorruptCheckpointError if arrays are not what was saved; names them."""
    wrong = [path for path, crc32 in found.items() if crc32 != expected[path]]
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


def first_few(items: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def shapes(tree: Any) -> dict[str, list[int]]:
    """The shape of each array of a tree, by its path."""
    return {path: list(x.shape) for path, x in _by_path(tree).items()}


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
