"""Where an encoded picture comes from: a file on disk or in memory."""

import os
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from PIL import Image


class Encoded(NamedTuple):
    """A picture's file in memory, and its name in messages."""

    data: bytes
    name: str = "The picture"


@runtime_checkable
class Readable(Protocol):
    """A binary file object."""

    def read(self) -> bytes:
        """Returns the rest of the file."""


Source = str | os.PathLike | Image.Image | Encoded | bytes | bytearray | memoryview | Readable


def content(source: Source) -> bytes:
    """Reads the bytes of a source, which is not a PIL picture.

    Raises:
        OSError: The file cannot be read.
        TypeError: A file object is open as text.
    """
    if isinstance(source, Encoded):
        return source.data
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return Path(source).read_bytes()
    if getattr(source, "seekable", bool)():  # The caller may just have written it.
        source.seek(0)
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError("it is open as text; open it with mode 'rb'")
    return data
