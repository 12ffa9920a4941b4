"""Sources of encoded images: files on disk and in memory."""

import os
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from PIL import Image


class Encoded(NamedTuple):
    """The content of an image file, and its name in messages."""

    data: bytes
    name: str = "The image"


@runtime_checkable
class Readable(Protocol):
    """A binary file object."""

    def read(self) -> bytes:
        """Returns the rest of the file."""


Source = str | os.PathLike | Image.Image | Encoded | bytes | bytearray | memoryview | Readable


def content(source: Source) -> bytes:
    """Reads the bytes of a source that is not a PIL image.

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
    if getattr(source, "seekable", bool)():  # A caller who wrote the file left it at its end.
        source.seek(0)
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError("it is open as text; open it with mode 'rb'")
    return data
