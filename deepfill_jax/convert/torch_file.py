"""Reads PyTorch files without PyTorch, and without running code that they contain."""

import contextlib
import io
import mmap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepfill_jax.convert import torch_pickle
from deepfill_jax.convert.layout import Moments
from deepfill_jax.convert.torch_tensor import DamagedError, Storage, Tensor
from deepfill_jax.errors import UsageError, printable

# The first two values of the format that PyTorch wrote before version 1.6.
MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001
ZIP_START = b"PK\x03\x04"


def load(path: Path) -> Any:
    """Reads a file in PyTorch's zip format, or in the format before version 1.6.

    Returns:
        Its content, see `torch_pickle.read`.

    Raises:
        UsageError: The file does not exist, is damaged, or contains anything but tensors and plain
            containers.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    try:
        with path.open("rb") as file, _Map(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            is_zip = stream[: len(ZIP_START)] == ZIP_START
            return _load_zip(stream) if is_zip else _load_legacy(stream)
    except torch_pickle.RefusedError as error:
        raise UsageError(
            f"{path} contains {_short(error)}, which would run code when loaded, which is refused: "
            "only tensors and plain containers are read; save only the state_dict instead."
        ) from error
    except Exception as error:  # Damaged archives raise KeyError, RuntimeError and many others.
        raise UsageError(
            f"{path} cannot be read as a PyTorch weights file ({_short(error)}); it is damaged or "
            "of another format: fetch it again, or save only the state_dict with torch.save."
        ) from error


def _short(error: Exception) -> str:
    return printable(str(error) or type(error).__name__)[:200]


class _Map(mmap.mmap):
    """A file whose `read` allocates no more than it holds, however much it is asked to read."""

    def seekable(self) -> bool:  # Python's own since 3.13.
        return True


class _Storages(dict[str, Storage]):
    """The storages of a file by key."""

    def __init__(self, byte_order: str):
        super().__init__()
        self._byte_order = byte_order

    def find(self, key: str, dtype: np.dtype, count: int) -> Storage:
        storage = self.setdefault(key, Storage(dtype, count, self._byte_order))
        if (storage.dtype, storage.count) != (dtype, count):
            raise DamagedError(f"the storage {key} has two types or sizes")
        return storage

    def fill(self, key: str, data: bytes) -> None:
        if len(data) != self[key].size:
            raise DamagedError(f"the storage {key} has {len(data)} bytes, not {self[key].size}")
        self[key].data = data


def _load_zip(stream: _Map) -> Any:
    """Reads an archive with the records data.pkl, data/KEY for each storage, and byteorder."""
    with zipfile.ZipFile(stream) as archive:  # type: ignore[call-overload]
        infos = archive.infolist()
        # Archives that unpack to more than their size are compressed, or their records overlap.
        if any(x.compress_type != zipfile.ZIP_STORED for x in infos):
            raise DamagedError("a record of the archive is compressed")
        if sum(x.file_size for x in infos) > len(stream):
            raise DamagedError("the records of the archive overlap")
        # All records are in one folder, whose name is arbitrary.
        records = {x.filename.partition("/")[2]: x for x in infos}
        order = archive.read(records["byteorder"]).decode() if "byteorder" in records else "little"
        if order not in ("little", "big"):
            raise DamagedError(f"the byte order is {order}")
        storages = _Storages(order)
        pickled = io.BytesIO(archive.read(records["data.pkl"]))
        content = torch_pickle.read(pickled, storages.find)
        for key in storages:
            storages.fill(key, archive.read(records[f"data/{key}"]))
    return content


def _load_legacy(stream: _Map) -> Any:
    """Reads five pickles (two constants, the writer's system, content, keys), then storages."""
    storages = _Storages("little")  # On systems of any byte order.
    if torch_pickle.read(stream, storages.find) != MAGIC_NUMBER:
        raise DamagedError("it does not start with PyTorch's magic number")
    if (version := torch_pickle.read(stream, storages.find)) != PROTOCOL_VERSION:
        raise DamagedError(f"its format has the unknown version {version}")
    _, content, keys = (torch_pickle.read(stream, storages.find) for _ in range(3))
    if sorted(keys) != sorted(storages):
        raise DamagedError("the list of storages differs from those that the tensors use")
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        if count != storages[key].count:
            raise DamagedError(f"the storage {key} has {count} elements")
        storages.fill(key, stream.read(storages[key].size))
    return content


def tensors(state_dict: Any) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict in its order; empty if it is not a state dict."""
    named = state_dict.items() if isinstance(state_dict, Mapping) else ()
    return {str(name): x.array() for name, x in named if isinstance(x, Tensor)}


def adam(optimizer: Any, names: list[str]) -> Moments | None:
    """Reads Adam's moments from the state dict of a torch.optim.Adam.

    Args:
        optimizer: The optimizer's state dict.
        names: Names of the parameters in the order of `Module.parameters()`, which is the order of
            the module's state dict without its buffers.

    Returns:
        The moments, or None if `optimizer` is not the state dict of an Adam optimizer.
    """
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        (group,) = optimizer["param_groups"]
        states = [optimizer["state"][index] for index in group["params"]]
        named = dict(zip(names, states, strict=True))
        first, second = (
            tensors({name: state[moment] for name, state in named.items()})
            for moment in ("exp_avg", "exp_avg_sq")
        )
        step = states[0]["step"]  # A tensor since PyTorch 1.12.
        return Moments(int(step.array() if isinstance(step, Tensor) else step), first, second)
    return None
