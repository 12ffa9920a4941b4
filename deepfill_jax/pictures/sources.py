"""Sources of encoded images: files on disk and in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image


@dataclass(frozen=True)
class Encoded:
    """The content of an image file, and its name in messages."""

    data: bytes
    name: str = "The image"


@runtime_checkable
class PathObject(Protocol):
    """A path, such as `pathlib.Path`: `os.PathLike[str]` in a form that `isinstance` takes."""

    def __fspath__(self) -> str:
        """Returns the path as text."""


@runtime_checkable
class Readable(Protocol):
    """A binary file object."""

    def read(self) -> bytes:
        """Returns the rest of the file."""


@runtime_checkable
class _Seekable(Protocol):
    def seekable(self) -> bool: ...

    def seek(self, offset: int, /) -> object: ...


File = str | PathObject | Encoded | bytes | bytearray | memoryview | Readable
Source = File | Image.Image


def content(source: File) -> bytes:
    """Reads the bytes of a file.

    Raises:
        OSError: The file cannot be read.
        TypeError: A file object is open as text.
    """
    if isinstance(source, Encoded):
        return source.data
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | PathObject):
        return Path(source).read_bytes()
    # A caller who wrote the file left it at its end.
    if isinstance(source, _Seekable) and source.seekable():
        source.seek(0)
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError("it is open as text; open it with mode 'rb'")
    return data
