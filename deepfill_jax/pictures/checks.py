"""Checks of image files before they are decoded: what Pillow would lose or misread silently."""

import zlib
from typing import Any

from PIL import Image
from PIL.ExifTags import Base

from deepfill_jax.pictures import formats

# Number of color bands by TIFF's PhotometricInterpretation: RGB, CMYK, YCbCr, three Lab variants.
_COLOUR_BANDS = {2: 3, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}
_SAMPLE_FORMAT, _SIGNED = 339, 2  # A tag of TIFF, and its value for signed integers.
_JPEG_SCAN, _JPEG_END = 0xDA, b"\xff\xd9"


class RefusalError(Exception):
    """An image is refused; the message is the rest of a sentence that begins with its name."""


def tiff_tag(opened: Image.Image, tag: int, default: Any) -> Any:
    """Returns the value of a TIFF tag; `default` if it is missing or the file is not a TIFF."""
    return getattr(opened, "tag_v2", {}).get(tag, default)


def check_damage(data: bytes) -> None:
    """Refuses damaged PNG and JPEG files that Pillow decodes without an error.

    Pillow does not compare the checksums of PNG pixels, and decodes zeros at the end of an
    incomplete JPEG as pixels.

    Args:
        data: Content of the file; empty for an image that is not read from a file.

    Raises:
        ValueError: The file is damaged.
    """
    name, has_end = formats.file_format(data[: formats.HEAD_BYTES]), True
    if name == "PNG":
        kind = b""
        for kind, content, checksum in formats.png_chunks(data):
            is_critical = kind[:1].isupper()  # Others are metadata, which Pillow checks.
            if is_critical and zlib.crc32(content, zlib.crc32(kind)) != checksum:
                raise ValueError("it is damaged, a checksum is wrong; copy it again")
        has_end = kind == b"IEND"
    if name == "JPEG":
        has_end = data.find(_JPEG_END, _first_scan(data)) >= 0
    if not has_end:
        raise ValueError("it is damaged, its end is missing; copy it again")


def _first_scan(data: bytes) -> int:
    """Returns the start of the pixels of a JPEG, behind the segments that may hold thumbnails."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] != _JPEG_SCAN:
        is_padding = data[start + 1] == 0xFF
        start += 1 if is_padding else 2 + int.from_bytes(data[start + 2 : start + 4])
    return start


def check_size(opened: Image.Image, max_pixels: int) -> None:
    """Refuses images with too many pixels.

    Raises:
        RefusalError: The image, or a tile of it, has more than `max_pixels` pixels.
    """
    # A tile of a TIFF may be larger than the image, and Pillow decodes whole tiles.
    tile = (tiff_tag(opened, Base.TileWidth, 0), tiff_tag(opened, Base.TileLength, 0))
    for width, height in (opened.size, tile):
        if width * height > max_pixels:
            raise RefusalError(
                f"has {width}x{height} pixels (width x height), more than the limit of "
                f"{max_pixels:,}; make it smaller, or raise max_pixels"
            )


def is_signed(opened: Image.Image) -> bool:
    """Whether an image is a TIFF of signed values of 8 bits, which Pillow reads as unsigned."""
    return opened.mode not in ("I", "F") and _SIGNED in tiff_tag(opened, _SAMPLE_FORMAT, ())


def check_tiff(opened: Image.Image) -> None:
    """Refuses TIFF files of which Pillow reads only a part, or reads other values.

    Raises:
        RefusalError: The file is a raw photograph, has bands that are neither colors nor opacity,
            or holds signed values.
    """
    if formats.is_raw(opened):
        raise RefusalError(
            "is a raw photograph, of which only a preview can be read; export a TIFF"
        )
    if is_signed(opened):
        raise RefusalError("holds signed values; save it with unsigned ones")
    colours = _COLOUR_BANDS.get(tiff_tag(opened, Base.PhotometricInterpretation, 1), 1)
    bands = tiff_tag(opened, Base.SamplesPerPixel, colours)
    extra = tuple(tiff_tag(opened, Base.ExtraSamples, ()))
    # Pillow itself does not declare the second band as opacity when it writes grey with opacity.
    has_opacity = extra in ((1,), (2,)) or (colours, extra) == (1, (0,))
    if bands > colours and not (bands == colours + 1 and has_opacity and colours in (1, 3)):
        raise RefusalError(
            f"has {bands} bands, of which the file declares {colours} as color; the others "
            "(infrared, spot colors) could not be kept: save the colors, with opacity if there is "
            "any, as a file of their own"
        )
