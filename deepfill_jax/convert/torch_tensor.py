"""Tensors and storages of PyTorch files, as NumPy sees them."""

import dataclasses
import math
import sys
from typing import Any

import ml_dtypes
import numpy as np

# Elements of a tensor that repeats the elements of a smaller storage (`torch.Tensor.expand`).
MAX_EXPANDED = 2**20
MAX_DIMENSIONS = 64  # NumPy's limit.

STORAGES = {
    "torch.FloatStorage": np.float32,
    "torch.DoubleStorage": np.float64,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
    "torch.ComplexFloatStorage": np.complex64,
    "torch.ComplexDoubleStorage": np.complex128,
    "torch.storage.UntypedStorage": np.uint8,
}
# Data types without a storage class of their own: their tensors view an untyped storage.
UNTYPED = {
    "torch.uint16": np.uint16,
    "torch.uint32": np.uint32,
    "torch.uint64": np.uint64,
    "torch.float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "torch.float8_e5m2": ml_dtypes.float8_e5m2,
}


class DamagedError(Exception):
    """A file is damaged, or describes impossible tensors; the message says how."""


@dataclasses.dataclass(eq=False)
class Storage:
    """The elements that one or more tensors view.

    Attributes:
        dtype: Type of the elements.
        count: Number of elements.
        byte_order: "little" or "big".
        data: The elements, None until they are read.
    """

    dtype: np.dtype
    count: int
    byte_order: str = "little"
    data: bytes | None = None

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.count * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage; offset and strides count elements of `dtype`.

    Raises:
        DamagedError: The elements do not lie in the storage, or a field has a wrong type.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def __post_init__(self) -> None:
        sizes = self.shape, self.strides, (self.offset,)
        if not isinstance(self.storage, Storage) or not all(map(are_sizes, sizes)):
            raise DamagedError("a tensor has no valid storage, shape or strides")
        if len(self.shape) != len(self.strides):
            raise DamagedError("the shape and the strides of a tensor differ in length")
        available, count = self.storage.size // self.dtype.itemsize, math.prod(self.shape)
        steps = zip(self.shape, self.strides, strict=True)
        if count and self.offset + sum((n - 1) * step for n, step in steps) >= available:
            raise DamagedError(f"a tensor of shape {self.shape} exceeds its storage")
        if count > max(available, MAX_EXPANDED):
            raise DamagedError(f"a tensor of shape {self.shape} repeats few elements too often")

    def array(self) -> np.ndarray:
        """Returns the elements in this machine's byte order; the array may be read-only."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        size = self.dtype.itemsize
        strides = [step * size for step in self.strides]
        view = np.ndarray(
            self.shape, self.dtype, self.storage.data, offset=self.offset * size, strides=strides
        )
        swapped = view if self.storage.byte_order == sys.byteorder else view.byteswap()
        return np.require(swapped, requirements="C")


def are_sizes(value: Any) -> bool:
    """Whether a value is a tuple of sizes, such as a shape: integers from 0, not too many."""
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_DIMENSIONS
        and all(type(x) is int and 0 <= x < 2**62 for x in value)
    )
