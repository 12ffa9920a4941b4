"""Detects the format of image files from their content, and lists the suffixes of formats."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

# Pillow's other formats are not supported: some need other programs (EPS), and some are reduced to
# 8 bits (JPEG 2000, PPM). The first suffix of a format is its usual one.
SUFFIXES = {
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "GIF": (".gif",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
}
READABLE = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
WRITABLE = {
    suffix: name for name in ("PNG", "TIFF", "WEBP", "BMP", "JPEG") for suffix in SUFFIXES[name]
}
LOSSY = frozenset({"JPEG", "WEBP", "AVIF", "HEIF"})  # Most files of these change values a little.
HEAD_BYTES = 64  # Number of bytes that `file_format` needs.
_START = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF.
    b"MM\0+": "TIFF",
}
# Sizes of BMP headers in bytes; "BM" alone may also be the start of a text file.
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_HEIF_BRANDS = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
_NEW_SUBFILE_TYPE, _DNG_VERSION = 254, 50706


def file_format(head: bytes) -> str | None:
    """Returns the format of a file, a key of `SUFFIXES`, from its first `HEAD_BYTES` bytes.

    None if the format is unknown.
    """
    for start, name in _START.items():
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[14:18] in (struct.pack("<I", size) for size in _BMP_HEADERS):
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[start : start + 4] for start in (8, *range(16, len(head) - 3, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if head[8:12] in _HEIF_BRANDS:
            return "HEIF"
    return None


def format_of(path: Path) -> str | None:
    """Returns the format of a file, or None if it is unknown or the file is a raw photograph.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        name = file_format(file.read(HEAD_BYTES))
        if name == "TIFF" and path.suffix.lower() not in SUFFIXES["TIFF"]:
            try:
                file.seek(0)
                return None if is_raw(open_as("TIFF", file)) else name
            except Exception:  # Corrupt files raise many types of exceptions.
                return None
    return name


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Yields the name, content and stored checksum of each chunk of a PNG file.

    The content of a chunk that is cut off is shorter, and its checksum is 0.
    """
    start, view = 8, memoryview(data)
    while start + 8 <= len(data):
        length, name = struct.unpack(">I4s", view[start : start + 8])
        end = start + 8 + length
        yield name, view[start + 8 : end], int.from_bytes(view[end : end + 4])
        if name == b"IEND":
            break
        start = end + 4


def own_suffix(suffix: str, name: str) -> str:
    """Returns `suffix` if it belongs to the format `name`, else the usual suffix of that format."""
    return suffix if suffix.lower() in SUFFIXES[name] else SUFFIXES[name][0]


def opener(name: str) -> Callable[[IO[bytes], str], Image.Image]:
    """Returns Pillow's reader of a format.

    Raises:
        UnidentifiedImageError: Pillow was built without this format.
        ImportError: HEIC needs pillow-heif.
    """
    if name == "HEIF":
        from pillow_heif import HeifImageFile  # Registering it would change Pillow globally.

        return HeifImageFile
    Image.init()
    if name not in Image.OPEN:
        raise UnidentifiedImageError
    return Image.OPEN[name][0]


def open_as(name: str, file: IO[bytes]) -> Image.Image:
    """Reads the header of an image file of a known format, without a limit of the image size.

    `Image.open` would apply Pillow's limit of pixels, which is global and whose message does not
    state the size; `decoding` checks a limit of its own.
    """
    return opener(name)(file, "")


def is_raw(opened: Image.Image) -> bool:
    """Whether a TIFF is a raw photograph (DNG, NEF, ARW, CR2); Pillow reads only its preview."""
    tags = getattr(opened, "tag_v2", {})
    return bool(tags.get(_NEW_SUBFILE_TYPE, 0) & 1) or _DNG_VERSION in tags
