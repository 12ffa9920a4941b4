"""Reads the pickles in PyTorch files without running code from them.

A pickle is a program for a stack machine, and Python's `pickle` calls any function that the program
names. This machine builds tensors and plain containers only. A function or class that a pickle
names is never imported: it becomes a `Global`, a name to look up in `_CALLS` and in the tables of
storages and data types. A name that is in none of them ends the reading.
"""

import dataclasses
import io
import itertools
import mmap
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from deepfill_jax.convert import torch_tensor
from deepfill_jax.convert.torch_tensor import STORAGES, UNTYPED, DamagedError, Storage, Tensor

# Instructions of one pickle. Each of them makes at most one small object, so that this bounds
# memory and time; a checkpoint with optimizer state has some ten thousand.
MAX_INSTRUCTIONS = 1_000_000

# Calls whose values are read past, because neither weights nor the metadata that we use contain
# any: bytes and NumPy values (in logs), and mmengine's logs, which refer to their own methods.
_SKIPPED_CALLS = """_codecs.encode builtins.bytearray builtins.bytes builtins.complex
builtins.getattr builtins.set mmengine.logging.history_buffer.HistoryBuffer
numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar numpy.dtype torch.device"""
_SKIPPED_TYPES = """numpy.ndarray torch.bool torch.uint8 torch.int8 torch.int16 torch.int32
torch.int64 torch.bfloat16 torch.float16 torch.float32 torch.float64 torch.complex64"""
# Modules that older versions of Python and NumPy have under other names.
_RENAMED_MODULES = {
    "__builtin__": "builtins",
    "numpy.core.multiarray": "numpy._core.multiarray",
}


class RefusedError(Exception):
    """A pickle names a function or class that is not allowed; the message is the name."""


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of a function or class."""

    name: str


class Skipped:
    """A value that was read past."""


FindStorage = Callable[[str, np.dtype, int], Storage]  # Function of key, dtype and count.


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    if metadata:  # The conjugate and negative bits of complex tensors.
        raise DamagedError("a tensor is a conjugate or negative view")
    return Tensor(storage, offset, shape, strides, storage.dtype)


def _tensor_of_untyped(*arguments: Any) -> Tensor:
    storage, offset, shape, strides, _grad, _hooks, dtype, *metadata = arguments
    if any(metadata):
        raise DamagedError("a tensor is a conjugate or negative view")
    return Tensor(storage, offset, shape, strides, np.dtype(UNTYPED[dtype.name]))


def _unchanged(kind: type) -> Callable[..., Any]:
    """Makes a function that returns its argument: a copy of a large one would cost memory."""

    def same(value: Any = None) -> Any:
        if value is not None and not isinstance(value, kind):
            raise DamagedError(f"a {kind.__name__} is made of another type")
        return kind() if value is None else value

    return same


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.Counter": _unchanged(dict),
    "collections.OrderedDict": _unchanged(dict),
    "torch.Size": _unchanged(tuple),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_untyped,
    "torch._utils._rebuild_parameter": lambda data, grad, hooks: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, grad, hooks, state: data,
}
_CALLS |= dict.fromkeys(_SKIPPED_CALLS.split(), lambda *_: Skipped())
ALLOWED = {*_CALLS, *_SKIPPED_TYPES.split(), *STORAGES, *UNTYPED}


class _Machine:
    """The stack machine; methods that take an argument are given that of the instruction."""

    def __init__(self, find_storage: FindStorage):
        self.stack: list[Any] = []
        self._find_storage = find_storage
        self._below_marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise DamagedError("an instruction lacks operands")
        start = len(self.stack) - count
        items, self.stack[start:] = self.stack[start:], []
        return items

    def mark(self, _: None) -> None:
        self._below_marks.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._below_marks.pop()
        return items

    def put(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def memoize(self, _: None) -> None:
        self.put(len(self._memo))

    def global_(self, words: str) -> None:
        module, _, name = words.partition(" ")
        full = f"{_RENAMED_MODULES.get(module, module)}.{name}"
        if full not in ALLOWED:
            raise RefusedError(f"{module}.{name}")
        self.push(Global(full))

    def stack_global(self, _: None) -> None:
        module, name = self.pop(2)
        self.global_(f"{module:s} {name:s}")

    def call(self, _: None) -> None:
        function, arguments = self.pop(2)
        if not isinstance(arguments, tuple):
            raise DamagedError("arguments are not a tuple")
        self.push(_CALLS[function.name](*arguments))

    def set_state(self, _: None) -> None:
        """Reads past attributes; those of a state dict are versions of its modules."""
        self.pop(1)
        if not isinstance(self.stack[-1], dict | Skipped):
            raise DamagedError("attributes are set on a value that has none")

    def find_storage(self, _: None) -> None:
        ((kind, storage, key, _location, count, *view),) = self.pop(1)
        if kind != "storage" or any(view) or not torch_tensor.are_sizes((count,)):
            raise DamagedError("a reference is not to a whole storage")
        self.push(self._find_storage(f"{key:s}", np.dtype(STORAGES[storage.name]), count))

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], Skipped):
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], Skipped):
            for key, value in zip(items[::2], items[1::2], strict=True):
                self.stack[-1][_checked_key(key)] = value


def _checked_key(key: Any) -> Any:
    """Returns a key of a dict if it is simple, because hashing nested tuples can take forever."""
    parts = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(x, str | int | float | bytes | None) for x in parts):
        raise DamagedError("a key of a dictionary is neither text nor a number")
    return key


# Those of the binary protocols, 2 and higher.
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "POP": lambda machine, _: machine.pop(1),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "MARK": _Machine.mark,
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.set_state,
    "BINPERSID": _Machine.find_storage,
}
_PUSHED = """BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8
BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8"""
_INSTRUCTIONS |= dict.fromkeys(_PUSHED.split(), _Machine.push)


def read(stream: io.BytesIO | mmap.mmap, find_storage: FindStorage) -> Any:
    """Reads one pickle.

    Args:
        stream: The bytes, at the start of the pickle; afterwards at its end. Unlike file objects,
            these types allocate no more than they hold, however much they are asked to read.
        find_storage: Returns the storage of a key, whose data may be read later.

    Returns:
        Dicts, lists, tuples, text, bytes, numbers and None; `Tensor`, `Storage`, `Global` and
        `Skipped`.

    Raises:
        RefusedError: The pickle names a function or class that is not allowed.
        DamagedError: It is damaged, or too long.
    """
    machine = _Machine(find_storage)
    try:
        instructions = pickletools.genops(stream)  # type: ignore[arg-type]
        for instruction, argument, _ in itertools.islice(instructions, MAX_INSTRUCTIONS):
            if instruction.name == "STOP":
                return machine.stack.pop()
            if instruction.name not in _INSTRUCTIONS:
                raise DamagedError(f"the pickle instruction {instruction.name} is not allowed")
            _INSTRUCTIONS[instruction.name](machine, argument)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DamagedError(f"a pickle is damaged: {error or type(error).__name__}") from error
    raise DamagedError(f"a pickle has more than {MAX_INSTRUCTIONS:,} instructions")
