"""Writes PyTorch files in the zip format, without PyTorch."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepfill_jax.atomic_write import atomic_write

FOLDER = "archive"  # The folder of the records; its name is arbitrary.
_STORAGES = {"float32": "FloatStorage", "int64": "LongStorage"}


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file that `torch.load` reads.

    Args:
        path: The file to write.
        content: Dicts of text, numbers, dicts, and arrays of float32 or int64, written as tensors.

    Raises:
        UsageError: The file cannot be written.
    """
    arrays: list[np.ndarray] = []
    program = pickle.PROTO + b"\x02" + _make(content, arrays) + pickle.STOP
    with atomic_write(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        archive.writestr(f"{FOLDER}/data.pkl", program)
        archive.writestr(f"{FOLDER}/byteorder", "little")
        for key, x in enumerate(arrays):
            archive.writestr(f"{FOLDER}/data/{key}", x.astype(x.dtype.newbyteorder("<")).tobytes())
        archive.writestr(f"{FOLDER}/version", "3\n")


def _make(value: Any, arrays: list[np.ndarray]) -> bytes:
    """Returns the pickle instructions that make a value; adds its arrays to `arrays`."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return _make_tensor(value, key=f"{len(arrays) - 1}")
    if isinstance(value, Mapping):
        items = b"".join(_make(x, arrays) for item in value.items() for x in item)
        return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    return _make_plain(value)


def _make_tensor(x: np.ndarray, *, key: str) -> bytes:
    """Returns the instructions that make a tensor, all elements of the storage `key`."""
    storage = _make_tuple(
        _make_plain("storage"),
        _find("torch", _STORAGES[x.dtype.name]),
        *map(_make_plain, (key, "cpu", x.size)),
    )
    strides = tuple(step // x.itemsize for step in np.empty(x.shape, x.dtype).strides)
    hooks = _find("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = _make_tuple(
        storage + pickle.BINPERSID, *map(_make_plain, (0, x.shape, strides, False)), hooks
    )
    return _find("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _find(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _make_tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _make_plain(value: Any) -> bytes:
    """Returns the pickle of text, a number or a tuple without its first and last instruction."""
    return pickle.dumps(value, protocol=2)[2:-1]
