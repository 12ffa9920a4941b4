"""Decodes images with Pillow, and explains in one sentence why an image cannot be decoded.

Pillow silently reduces colours of 16 bits per channel to 8 bits, so OpenCV decodes these. HEIC is
decoded by `pillow-heif`. The extra `pictures` installs both.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ExifTags import Base

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import formats, metadata
from deepfill_jax.pictures.checks import (
    RefusalError,
    check_damage,
    check_size,
    check_tiff,
    tiff_tag,
)
from deepfill_jax.pictures.sources import PathObject, Source, content

MAX_PIXELS = 120_000_000  # Accepts cameras of 100 megapixels and phones of 108.

_KINDS = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC"
_EXTRA = "pip install 'deepfill_jax[pictures]'"


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright image, with the alpha and metadata that are needed to write it again.

    Attributes:
        pixels: [H, W, 1] grey or [H, W, 3] RGB, uint8 or uint16.
        alpha: Opacity, [H, W, 1] of the same type, or None. Colors where it is 0 are arbitrary.
        kept_share: float32 [H, W, 1] in [0, 1] if the alpha channel was the mask, else None: the
            fraction of each pixel's color that is kept; the inpainting result supplies the rest.
        metadata: Metadata that results keep, see `metadata.read`.
        jpeg: Compression parameters and orientation of a JPEG, see `metadata.jpeg`.
        orientation: EXIF orientation, 1 to 8, that was undone; 1 if the pixels are as stored.
        format: Format of the file, a key of `formats.SUFFIXES`; empty for a PIL image in memory.
        left_out: Names of the file's contents that no result keeps, such as "thumbnail".
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    jpeg: Mapping[str, Any] = field(default_factory=dict)
    orientation: int = 1
    format: str = ""
    left_out: tuple[str, ...] = ()
    kept_share: np.ndarray | None = None


def describe(source: Source, unnamed: str = "The image") -> str:
    """Returns the source's name for messages; `unnamed` if it has none."""
    if isinstance(source, str | PathObject):
        return str(source)
    # The name of a file object without a name is a number or None.
    name = getattr(source, "filename" if isinstance(source, Image.Image) else "name", "")
    return name if isinstance(name, str) and name else unnamed


def reason(error: Exception) -> str:
    """Returns the message of a library's exception without a full stop, to end a sentence."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(said.split()).rstrip(".")


def decode(source: Source, max_pixels: int, *, as_stored: bool = False) -> Picture:
    """Reads an image as `pictures.read` does, but also accepts int32 and float32 values.

    Args:
        source: See `pictures.read`.
        max_pixels: Maximum number of pixels; larger images are refused before they are decoded.
        as_stored: Do not turn the pixels upright.

    Returns:
        The image. Pixels of a grey image without alpha may also be int32 or float32.

    Raises:
        UsageError: The image cannot be read.
    """
    data = b""
    try:
        if isinstance(source, Image.Image):
            return _decode(source, data, max_pixels, as_stored)
        data = content(source)
        with _open(data) as opened:
            return _decode(opened, data, max_pixels, as_stored)
    except RefusalError as error:
        raise UsageError(f"{describe(source)} {error}.") from error
    except UnidentifiedImageError as error:
        problem = f"it is not a {_KINDS} file, or uses a rare variant" if data else "it is empty"
        raise UsageError(f"{describe(source)} cannot be read as an image: {problem}.") from error
    except Exception as error:  # Pillow's readers raise many kinds, SyntaxError among them.
        problem = f"cannot be read as an image: {reason(error)}"
        raise UsageError(f"{describe(source)} {problem}.") from error


def _open(data: bytes) -> Image.Image:
    """Reads the header of an image file."""
    name = formats.file_format(data[: formats.HEAD_BYTES])
    if name is None:
        raise UnidentifiedImageError
    check_damage(data)
    try:
        return formats.open_as(name, io.BytesIO(data))
    except ImportError as error:
        raise RefusalError(f"is a HEIC image, which needs pillow-heif: {_EXTRA}") from error


def _decode(opened: Image.Image, data: bytes, max_pixels: int, as_stored: bool) -> Picture:
    """Decodes an opened image; `data` is the content of its file, empty for a PIL image."""
    check_size(opened, max_pixels)
    # Further frames of a phone's file are previews and depth maps. The frames are not counted,
    # because Pillow reads all pages of a TIFF to count them.
    if getattr(opened, "is_animated", False) and opened.format not in ("MPO", "HEIF"):
        raise RefusalError("holds several frames or pages; save the one to use as a separate file")
    if opened.format == "TIFF":
        check_tiff(opened)
        if data:  # The memory is allocated here, as Pillow would apply its global limit of pixels.
            opened.im = Image.new(opened.mode, getattr(opened, "_tile_size", opened.size)).im
    bits = data[24:25] if opened.format == "PNG" else tiff_tag(opened, Base.BitsPerSample, ())
    is_tiff = opened.format == "TIFF"
    stored = metadata.orientation(opened) if is_tiff else 1
    # Turns a TIFF upright. Raises if the file is damaged; in a PNG, reading EXIF first would hide
    # this error, as Pillow decodes the pixels for it.
    opened.load()
    rest = metadata.orientation(opened)
    stored = stored if is_tiff else rest
    if opened.mode in ("I", "F") or opened.mode.startswith("I;16"):
        pixels, alpha = _numbers(opened), None
    elif data and 16 in bits:
        pixels, alpha = _colours_of_16_bits(opened, data)
    else:
        pixels, alpha = _bytes(opened)
    orientation = 1 if as_stored else rest
    kept, left_out = metadata.read(opened, data, is_upright=stored == 1)
    return Picture(
        metadata.upright(pixels, orientation),
        None if alpha is None else metadata.upright(alpha, orientation),
        kept,
        metadata.jpeg(opened, orientation),
        1 if as_stored else stored,
        "JPEG" if opened.format == "MPO" else opened.format or "",
        left_out,
    )


def _numbers(opened: Image.Image) -> np.ndarray:
    """Returns grey values of 16 bits or more: uint16, int32 or float32 [H, W, 1]."""
    if "transparency" in opened.info:
        raise RefusalError(
            "has 16 bits and a transparent grey value; save it with an alpha channel"
        )
    bits = tiff_tag(opened, Base.BitsPerSample, (16,))
    if opened.mode.startswith("I;16"):
        # Pillow neither scales these nor turns them around.
        if bits != (16,) or tiff_tag(opened, Base.PhotometricInterpretation, 1) != 1:
            raise RefusalError(
                f"has {bits[0]} bits in an unsupported encoding; save it as a 16-bit PNG"
            )
        return np.asarray(opened).astype(np.uint16)[..., np.newaxis]
    return np.asarray(opened)[..., np.newaxis]


def _colours_of_16_bits(opened: Image.Image, data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Decodes colours of 16 bits by OpenCV, which returns grey with alpha as RGB."""
    cv2 = opencv()
    wide = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    cut = np.asarray(opened)
    # If the decoders agree on the upper 8 bits, neither misread the layout of a TIFF file.
    if wide is not None and wide.dtype == np.uint16 and wide.ndim == 3 and cut.ndim == 3:
        wide = wide[..., [2, 1, 0, 3][: wide.shape[2]]]
        if np.array_equal(wide[..., : cut.shape[2]] >> 8, cut):
            return wide[..., :3], wide[..., 3:] if wide.shape[2] == 4 else None
    raise RefusalError(
        f"has 16 bits per channel in an unsupported encoding ({opened.format}, {opened.mode}); "
        "save it as a PNG"
    )


def opencv() -> ModuleType:
    """Imports OpenCV in a version that reads and writes metadata."""
    try:
        import cv2
        from cv2 import imencodeWithMetadata  # noqa: F401, it is missing in older versions.
    except ImportError as error:
        raise RefusalError(
            f"has 16 bits per channel, which needs OpenCV: {_EXTRA}; or save it with 8 bits"
        ) from error
    return cv2


def _bytes(opened: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns grey or RGB pixels of 8 bits, and alpha or None."""
    if opened.mode == "CMYK":
        return np.asarray(_cmyk_to_rgb(opened)), None
    grey = opened.mode in ("1", "L", "LA", "La")
    if not grey and opened.mode not in ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr"):
        raise RefusalError(f"has the unsupported color mode {opened.mode}; save it as RGB")
    if opened.has_transparency_data:
        both = np.asarray(opened.convert("LA" if grey else "RGBA"))
        return both[..., :-1], both[..., -1:]
    return np.atleast_3d(np.asarray(opened.convert("L" if grey else "RGB"))), None


def _cmyk_to_rgb(opened: Image.Image) -> Image.Image:
    """Converts CMYK to sRGB by its ICC profile, or by Pillow's formula if none is usable."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(opened.info["icc_profile"]))
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(profile, srgb, opened.mode, "RGB").apply(opened)
    except (KeyError, OSError, ImportError, ImageCms.PyCMSError):
        return opened.convert("RGB")
