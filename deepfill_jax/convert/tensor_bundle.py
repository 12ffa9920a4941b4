"""Reader for TensorFlow checkpoints ("tensor bundles") that does not need TensorFlow.

A checkpoint is identified by a PREFIX. PREFIX.index contains the position of each tensor;
PREFIX.data-00000-of-00001 contains the bytes, possibly in several shards. The index is a LevelDB
table: blocks of sorted keys, each with a checksum, and a footer with the position of the index
block. Values are protocol buffers of type `BundleEntryProto`; the empty key has a
`BundleHeaderProto`.

Sources: LevelDB's doc/table_format.md; tensorflow/core/protobuf/tensor_bundle.proto.
"""

import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from deepfill_jax.convert.crc32c import crc32c, masked
from deepfill_jax.errors import UsageError

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
# The numbers are those of tensorflow/core/framework/types.proto.
DTYPES = {
    1: np.dtype(np.float32),
    2: np.dtype(np.float64),
    3: np.dtype(np.int32),
    9: np.dtype(np.int64),
    14: np.dtype(ml_dtypes.bfloat16),
    19: np.dtype(np.float16),
}
_PART = re.compile(r"(.+)\.(index|meta|data-\d{5}-of-\d{5})")


class Entry(NamedTuple):
    """Index entry of a tensor."""

    dtype: np.dtype | None  # None for types other than those of weights, such as strings.
    shape: tuple[int, ...]
    shard: int
    offset: int  # Position in the shard's file in bytes.
    size: int  # Size in bytes.
    checksum: int  # Masked CRC-32C of the bytes.
    sliced: bool  # Is the tensor stored in slices under other names?


class Bundle:
    """An open checkpoint: `entries` has the index entries by name, `read` reads a tensor."""

    def __init__(self, prefix: Path):
        """Reads the index.

        Raises:
            UsageError: The index or a shard does not exist, or the index is damaged or in an
                unsupported format.
        """
        self.index = prefix.with_name(f"{prefix.name}.index")
        values = _read_table(self.index)
        try:
            header, _ = _parse(values.pop(b""))
            self.entries = {key.decode(): _entry(value) for key, value in values.items()}
        except (KeyError, IndexError, ValueError, struct.error) as error:
            raise UsageError(f"{self.index} is damaged: it cannot be decoded.") from error
        if header[2]:
            raise UsageError(f"{self.index} is big-endian; write it on a little-endian machine.")
        self.shards: list[Path] = []
        count = header[1]
        for n in range(count):
            shard = prefix.with_name(f"{prefix.name}.data-{n:05d}-of-{count:05d}")
            if not shard.is_file():
                raise UsageError(f"There is no file {shard}, but {self.index.name} refers to it.")
            self.shards.append(shard)

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor and verifies its checksum.

        Raises:
            UsageError: The tensor is damaged, or stored in an unsupported format.
        """
        entry = self.entries[name]
        if entry.sliced or entry.dtype is None:
            kind = "in slices" if entry.sliced else "in a data type that weights do not have"
            raise UsageError(f"{self.index} stores {name} {kind}, which is not supported.")
        if entry.shard >= len(self.shards):
            raise UsageError(f"{self.index} is damaged: the shard of {name} does not exist.")
        shard = self.shards[entry.shard]
        if shard.stat().st_size < entry.offset + entry.size:
            raise UsageError(f"{shard} is truncated: it ends before the end of {name}.")
        with shard.open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        if masked(crc32c(data)) != entry.checksum:
            raise UsageError(f"{shard} is damaged: {name} fails its checksum.")
        try:
            return np.frombuffer(data, entry.dtype.newbyteorder("<")).reshape(entry.shape)
        except ValueError as error:
            raise UsageError(
                f"{self.index} is damaged: {name} of shape {entry.shape} has {entry.size} bytes."
            ) from error


def find_prefix(source: Path) -> Path | None:
    """Finds the prefix of a checkpoint; returns None if the path does not name a checkpoint.

    Args:
        source: The prefix, one of the checkpoint's files, or a folder. In a folder, the checkpoint
            is the one named in the file `checkpoint` (`checkpoint.txt` if Google Drive has renamed
            it), or else the folder's only one.

    Raises:
        UsageError: The folder has several checkpoints, and no file `checkpoint` names one of them.
    """
    if not source.is_dir():
        part = _PART.fullmatch(source.name)
        prefix = source.with_name(part[1]) if part else source
        return prefix if part or prefix.with_name(f"{prefix.name}.index").is_file() else None
    for name in ("checkpoint", "checkpoint.txt"):
        if (source / name).is_file():
            text = (source / name).read_text(errors="replace")
            named = re.search(r'^model_checkpoint_path: "(.+)"$', text, re.MULTILINE)
            if named:  # An absolute path refers to the machine that wrote the checkpoint.
                path = Path(named[1])
                return source / (path.name if path.is_absolute() else path)
    indices = sorted(source.glob("*.index"))
    if len(indices) > 1:
        raise UsageError(
            f"{source} has {len(indices)} checkpoints; name one of them, such as {indices[-1]}."
        )
    return indices[0].with_suffix("") if indices else None


def _read_table(path: Path) -> dict[bytes, bytes]:
    """Reads all keys and values of a LevelDB table."""
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    data = path.read_bytes()
    if len(data) < FOOTER_BYTES or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise UsageError(f"{path} is not the index of a TensorFlow checkpoint, or is truncated.")
    try:
        footer = data[-FOOTER_BYTES:]
        _, position = _handle(footer, 0)  # Skip the handle of the empty statistics block.
        handle, _ = _handle(footer, position)
        return {
            key: value
            for _, block in _block(data, handle, path)
            for key, value in _block(data, _handle(block, 0)[0], path)
        }
    except UsageError:
        raise
    except (IndexError, ValueError, struct.error) as error:
        raise UsageError(f"{path} is damaged: it cannot be decoded.") from error


def _block(data: bytes, handle: tuple[int, int], path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yields keys and values of a block; keys are stored as differences to the previous key."""
    offset, size = handle
    content, kind = data[offset : offset + size], data[offset + size]
    (checksum,) = struct.unpack_from("<I", data, offset + size + 1)
    if masked(crc32c(content + bytes([kind]))) != checksum:
        raise UsageError(f"{path} is damaged: a block fails its checksum.")
    if kind:
        raise UsageError(f"{path} is compressed, which is not supported; save it again with TF 2.")
    (restarts,) = struct.unpack("<I", content[-4:])
    end = len(content) - 4 * (restarts + 1)
    key, position = b"", 0
    while position < end:
        shared, position = _varint(content, position)
        added, position = _varint(content, position)
        length, position = _varint(content, position)
        key = key[:shared] + content[position : position + added]
        position += added + length
        yield key, content[position - length : position]


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Decodes a block handle: ((offset, size), position after the handle)."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return (offset, size), position


def _entry(value: bytes) -> Entry:
    numbers, messages = _parse(value)
    dimensions = [size for shape in messages[2] for size in _parse(shape)[1][2]]
    return Entry(
        dtype=DTYPES.get(numbers[1]),
        shape=tuple(_parse(size)[0][1] for size in dimensions),
        shard=numbers[3],
        offset=numbers[4],
        size=numbers[5],
        checksum=numbers[6],
        sliced=bool(messages[7]),
    )


def _parse(message: bytes) -> tuple[defaultdict[int, int], defaultdict[int, list[bytes]]]:
    """Decodes a protocol buffer: numbers, and lists of messages or texts, by field number.

    A number that is 0 may be absent.
    """
    numbers: defaultdict[int, int] = defaultdict(int)
    messages: defaultdict[int, list[bytes]] = defaultdict(list)
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            numbers[field], position = _varint(message, position)
        elif wire == 2:
            length, position = _varint(message, position)
            messages[field].append(message[position : position + length])
            position += length
        elif wire in (1, 5):
            (numbers[field],) = struct.unpack_from("<Q" if wire == 1 else "<I", message, position)
            position += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
    return numbers, messages


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Decodes an integer of 7 bits per byte, lowest bits first: (value, position after it)."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
