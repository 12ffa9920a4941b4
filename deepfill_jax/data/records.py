"""Reads single images from the files of a prepared TFDS data set, without TensorFlow.

A record is a serialised tf.train.Example whose feature "image" is an encoded image.
"""

import functools
import os
import struct
from io import FileIO
from typing import Any, NamedTuple

import numpy as np

from deepfill_jax.pictures import rgb

# A TFRecord is the length of its data, 8 bytes; the checksum of the length, 4 bytes; the data; and
# the checksum of the data, 4 bytes.
HEADER_BYTES, FOOTER_BYTES = 12, 4
# Files that a process keeps open; of more, those that were not read for longest are closed.
_OPEN_FILES = 256


class TfRecord(NamedTuple):
    """A record of a TFRecord file: the position and the number of bytes of its data."""

    path: str
    offset: int
    length: int

    def read(self) -> bytes:
        """Returns the data; raises OSError or UnreadableImageError if it cannot be read."""
        data = os.pread(_file(self.path).fileno(), self.length, self.offset)
        if len(data) < self.length:
            raise rgb.UnreadableImageError(f"{self.path} ends early")
        return data


class ArrayRecord(NamedTuple):
    """A record of an ArrayRecord file, by its number in the file."""

    path: str
    number: int

    def read(self) -> bytes:
        """Returns the data; raises UnreadableImageError if it cannot be read."""
        try:
            (data,) = _array_file(self.path).read([self.number])
        except Exception as error:  # The library raises several types.
            raise rgb.UnreadableImageError(f"{self.path} cannot be read: {error}") from error
        return data


Record = TfRecord | ArrayRecord


def lengths(path: str, count: int) -> np.ndarray:
    """Reads the number of bytes of each record's data in a TFRecord file.

    Args:
        path: The file.
        count: Number of its records.

    Returns:
        int64 [count].

    Raises:
        OSError: The file cannot be read.
        ValueError: It does not consist of so many records.
    """
    found, position, size = np.zeros(count, np.int64), 0, os.path.getsize(path)
    with open(path, "rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # Only a few bytes of each record are read.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for number in range(count):
            header = os.pread(file.fileno(), 8, position)
            (length,) = struct.unpack("<q", header) if len(header) == 8 else (-1,)
            if length < 0:
                break
            found[number] = length
            position += HEADER_BYTES + length + FOOTER_BYTES
        else:
            if position == size:
                return found
    raise ValueError(f"it does not consist of {count} records")


def offsets(of_lengths: np.ndarray) -> np.ndarray:
    """Returns the position of each record's data in a TFRecord file, int64 [N], from `lengths`."""
    ends = np.cumsum(of_lengths + HEADER_BYTES + FOOTER_BYTES)
    return ends - FOOTER_BYTES - of_lengths


def image(example: bytes) -> bytes:
    """Returns the encoded image in a serialised tf.train.Example.

    Raises:
        UnreadableImageError: There is none.
    """
    # Imported here, because not all sources need it.
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        features = tf_example_pb2.Example.FromString(example).features.feature
    except DecodeError as error:
        raise rgb.UnreadableImageError(f"the record is damaged ({error})") from error
    if "image" not in features or not features["image"].bytes_list.value:
        raise rgb.UnreadableImageError("the record holds no image")
    return features["image"].bytes_list.value[0]


@functools.lru_cache(_OPEN_FILES)
def _file(path: str) -> FileIO:
    return open(path, "rb", buffering=0)


@functools.lru_cache(_OPEN_FILES)
def _array_file(path: str) -> Any:
    # Imported here, because not all sources need it.
    from array_record.python import array_record_module

    options = "readahead_buffer_size:0,max_parallelism:0"  # These are for random access.
    return array_record_module.ArrayRecordReader(
        path, options=options, file_reader_buffer_size=32768
    )
