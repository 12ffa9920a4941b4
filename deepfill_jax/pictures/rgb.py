"""Decodes images for training and scoring: uint8 RGB [H, W, 3], fast, without what else they hold.

Grey is repeated to three channels, 16 bits keep the upper 8, alpha is dropped, the EXIF orientation
is applied. Any format that Pillow reads is accepted; of several frames, the first is taken.
`pictures.read` is for images that are inpainted and written again.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from deepfill_jax.errors import UsageError

_JPEG_END = b"\xff\xd9"


class UnreadableImageError(ValueError):
    """The bytes do not decode to an image."""


def decode(encoded: bytes) -> np.ndarray:
    """Decodes an image file in memory.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        UnreadableImageError: The bytes are not an image, or end early.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            if opened.format == "JPEG" and opened.mode == "RGB" and encoded.endswith(_JPEG_END):
                return _decode_jpeg(encoded)
            ImageOps.exif_transpose(opened, in_place=True)
            return _to_rgb(opened)
    except Exception as error:  # Pillow's readers raise many kinds, SyntaxError among them.
        raise UnreadableImageError(f"{type(error).__name__}: {error}") from error


def read(path: str | Path) -> np.ndarray:
    """Reads an image file as `decode` does.

    Raises:
        UsageError: The file cannot be read, or is not an image.
    """
    try:
        return decode(Path(path).read_bytes())
    except (OSError, UnreadableImageError) as error:
        raise UsageError(f"{path} cannot be read as a picture: {error}.") from error


def read_size(source: str | Path | bytes) -> tuple[int, int]:
    """Reads width and height from the header of a file, given by path or content, as it is stored.

    Raises:
        UsageError: The file cannot be read, or is not an image.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            return opened.size
    except Exception as error:  # See `decode`.
        name = "The picture" if isinstance(source, bytes) else source
        raise UsageError(f"{name} cannot be read as a picture: {error}.") from error


def is_readable(path: str | Path) -> bool:
    """Whether a file is an image and decodes to its end."""
    try:
        with Image.open(path) as opened:
            # An eighth of the size where the format can (JPEG): all bytes are still read.
            opened.draft(None, (1, 1))
            opened.load()
    except Exception:  # See `decode`.
        return False
    return True


def suffixes() -> frozenset[str]:
    """Lower-case suffixes of the formats that `decode` reads, with their dots."""
    found = Image.registered_extensions().items()
    return frozenset(suffix for suffix, format in found if format in Image.OPEN)


def _decode_jpeg(encoded: bytes) -> np.ndarray:
    """The pixels that Pillow gives, upright, in 0.9 of its time (256 px) to 0.4 (12 megapixels).

    OpenCV does not report a JPEG that ends early, and has its own formula for CMYK.
    """
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise ValueError("OpenCV cannot decode this JPEG")
    return pixels


def _to_rgb(opened: Image.Image) -> np.ndarray:
    if opened.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255.
        grey = np.clip(np.asarray(opened) // 256, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., np.newaxis], 3, axis=-1)
    if opened.mode == "P":  # Not straight to RGB, which warns about transparent colours.
        opened = opened.convert("RGBA")
    return np.asarray(opened.convert("RGB"))
