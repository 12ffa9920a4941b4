"""Decodes pictures with Pillow, or says in a sentence why not.

Pillow has no colours of 16 bits a channel and silently cuts them to 8: those go through OpenCV.
HEIC goes through `pillow-heif`. The extra `pictures` installs both.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ExifTags import Base

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import formats, metadata
from deepfill_jax.pictures.sources import Source, content

MAX_PIXELS = 120_000_000  # Cameras of 100 megapixels and phones of 108 pass.

_KINDS = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC"
# Number of color bands by TIFF's PhotometricInterpretation: RGB, CMYK, YCbCr, three kinds of Lab.
_COLOUR_BANDS = {2: 3, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}
_EXTRA = "pip install 'deepfill_jax[pictures]'"


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, upright, and what is needed to write it again.

    Attributes:
        pixels: [H, W, 1] grey or [H, W, 3] RGB, uint8 or uint16.
        alpha: Opacity, [H, W, 1] of the same type, or None. Colors under opacity 0 are arbitrary.
        kept_share: float32 [H, W, 1] in [0, 1] where opacity was the mask, or None: how much of
            each pixel's color is kept; the result takes the rest from the fill.
        metadata: What is kept beside pixels, see `metadata.read`.
        jpeg: How a JPEG was compressed and which way it lay, see `metadata.jpeg`.
        orientation: EXIF orientation, 1 to 8, that was undone; 1 if the pixels lie as stored.
        format: Of the file, a key of `formats.SUFFIXES`; empty for a PIL picture without a file.
        left_out: What the file held that no result keeps, such as "thumbnail".
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    jpeg: Mapping[str, Any] = field(default_factory=dict)
    orientation: int = 1
    format: str = ""
    left_out: tuple[str, ...] = ()
    kept_share: np.ndarray | None = None


class RefusalError(Exception):
    """The rest of a sentence that begins with the picture's name."""


def describe(source: Source, unnamed: str = "The picture") -> str:
    """The source's name in messages; `unnamed` if it has none."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or unnamed
    name = getattr(source, "name", "")  # Of a file without a name, this is a number or None.
    return name if isinstance(name, str) and name else unnamed


def reason(error: Exception) -> str:
    """What an exception of a library says, as the end of a sentence without its full stop."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(said.split()).rstrip(".")


def decode(source: Source, max_pixels: int, *, as_stored: bool = False) -> Picture:
    """Reads a picture as `pictures.read` does, and one of whole or real numbers as well.

    Args:
        source: See `pictures.read`.
        max_pixels: What is larger is refused before it is decoded.
        as_stored: Do not turn the pixels upright.

    Returns:
        A picture; grey without alpha, its pixels may also be int32 or float32.

    Raises:
        UsageError: It cannot be read.
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
        problem = f"it is no {_KINDS}, or one of a rare kind" if data else "it is empty"
        raise UsageError(f"{describe(source)} cannot be read as a picture: {problem}.") from error
    except Exception as error:  # Pillow's readers raise many kinds, SyntaxError among them.
        problem = f"cannot be read as a picture: {reason(error)}"
        raise UsageError(f"{describe(source)} {problem}.") from error


def _open(data: bytes) -> Image.Image:
    """Reads a picture's header."""
    name = formats.file_format(data[: formats.HEAD_BYTES])
    if name is None:
        raise UnidentifiedImageError
    try:
        return formats.open_as(name, io.BytesIO(data))
    except ImportError as error:
        raise RefusalError(f"is a HEIC picture, which needs pillow-heif: {_EXTRA}") from error


def _check_size(opened: Image.Image, max_pixels: int) -> None:
    # The tile of a TIFF may be larger than the picture, and is decoded whole.
    tile = (_tiff_tag(opened, Base.TileWidth, 0), _tiff_tag(opened, Base.TileLength, 0))
    for width, height in (opened.size, tile):
        if width * height > max_pixels:
            raise RefusalError(
                f"has {width}x{height} pixels (width x height), more than the limit of "
                f"{max_pixels:,}; make it smaller, or raise max_pixels"
            )


def _decode(opened: Image.Image, data: bytes, max_pixels: int, as_stored: bool) -> Picture:
    """Decodes an opened picture; `data` is its file, where there is one."""
    _check_size(opened, max_pixels)
    # The others of a phone's picture are its previews and depths. How many there are is not asked:
    # to count the pages of a TIFF, Pillow reads them all.
    if getattr(opened, "is_animated", False) and opened.format not in ("MPO", "HEIF"):
        raise RefusalError("holds several frames or pages; save the one that you mean by itself")
    _check_bands(opened)
    if opened.format == "TIFF" and data:
        # Memory of our own, as Pillow checks what it allocates against the limit of the process.
        opened.im = Image.new(opened.mode, getattr(opened, "_tile_size", opened.size)).im
    bits = data[24:25] if opened.format == "PNG" else _tiff_tag(opened, Base.BitsPerSample, ())
    stored = metadata.orientation(opened)
    opened.load()  # Raises if the file is cut short; turns a TIFF upright.
    if opened.mode in ("I", "F") or opened.mode.startswith("I;16"):
        pixels, alpha = _numbers(opened), None
    elif data and 16 in bits:
        pixels, alpha = _colours_of_16_bits(opened, data)
    else:
        pixels, alpha = _bytes(opened)
    orientation = 1 if as_stored else metadata.orientation(opened)
    kept, left_out = metadata.read(opened, data, is_upright=stored == 1)
    return Picture(
        metadata.upright(pixels, orientation),
        None if alpha is None else metadata.upright(alpha, orientation),
        kept,
        metadata.jpeg(opened, orientation),
        1 if as_stored else stored,
        {"MPO": "JPEG"}.get(opened.format, opened.format or ""),
        left_out,
    )


def _check_bands(opened: Image.Image) -> None:
    """Refuses TIFF files with bands that are neither colors nor opacity, which would be lost."""
    if opened.format != "TIFF":
        return
    if formats.is_raw(opened):
        raise RefusalError("is a raw photograph, of which only a preview can be read; develop it")
    colours = _COLOUR_BANDS.get(_tiff_tag(opened, Base.PhotometricInterpretation, 1), 1)
    bands = _tiff_tag(opened, Base.SamplesPerPixel, colours)
    extra = tuple(_tiff_tag(opened, Base.ExtraSamples, ()))
    # Pillow itself writes grey with opacity without saying that the second band is opacity.
    has_opacity = extra in ((1,), (2,)) or (colours, extra) == (1, (0,))
    if bands > colours and not (bands == colours + 1 and has_opacity and colours in (1, 3)):
        raise RefusalError(
            f"has {bands} bands, of which the file declares {colours} as color; the others "
            "(infrared, spot colors) could not be kept: save the colors, with opacity if there is "
            "any, as a file of their own"
        )


def _tiff_tag(opened: Image.Image, tag: int, default: Any) -> Any:
    return getattr(opened, "tag_v2", {}).get(tag, default)


def _numbers(opened: Image.Image) -> np.ndarray:
    """Grey of 16 bits or more: uint16, int32 or float32 [H, W, 1]."""
    if "transparency" in opened.info:
        raise RefusalError(
            "has 16 bits and a transparent grey value; save it with an alpha channel"
        )
    bits = _tiff_tag(opened, Base.BitsPerSample, (16,))
    if opened.mode.startswith("I;16"):
        # Pillow neither scales these nor turns them around.
        if bits != (16,) or _tiff_tag(opened, Base.PhotometricInterpretation, 1) != 1:
            raise RefusalError(f"has {bits[0]} bits in a rare form; save it as a 16-bit PNG")
        return np.asarray(opened).astype(np.uint16)[..., np.newaxis]
    return np.asarray(opened)[..., np.newaxis]


def _colours_of_16_bits(opened: Image.Image, data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours of 16 bits by OpenCV; grey with alpha comes as RGB, as OpenCV has it."""
    cv2 = opencv()
    wide = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    cut = np.asarray(opened)
    # Two decoders that agree on the upper 8 bits: neither guessed the form of a TIFF file.
    if wide is not None and wide.dtype == np.uint16 and wide.ndim == 3 and cut.ndim == 3:
        wide = wide[..., [2, 1, 0, 3][: wide.shape[2]]]
        if np.array_equal(wide[..., : cut.shape[2]] >> 8, cut):
            return wide[..., :3], wide[..., 3:] if wide.shape[2] == 4 else None
    raise RefusalError(
        f"has 16 bits a channel in a form that is rare ({opened.format}, {opened.mode}); save it "
        "as a PNG"
    )


def opencv() -> ModuleType:
    """OpenCV, of a version that reads and writes metadata."""
    try:
        import cv2

        cv2.imencodeWithMetadata  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise RefusalError(
            f"has 16 bits a channel, which needs OpenCV: {_EXTRA}; or save it with 8 bits"
        ) from error
    return cv2


def _bytes(opened: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Grey or RGB of 8 bits, and its alpha."""
    if opened.mode == "CMYK":
        return np.asarray(_cmyk_to_rgb(opened)), None
    grey = opened.mode in ("1", "L", "LA", "La")
    if not grey and opened.mode not in ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr"):
        raise RefusalError(f"has colours of the kind {opened.mode}; save it in RGB")
    if opened.has_transparency_data:
        both = np.asarray(opened.convert("LA" if grey else "RGBA"))
        return both[..., :-1], both[..., -1:]
    pixels = np.asarray(opened.convert("L" if grey else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1), None


def _cmyk_to_rgb(opened: Image.Image) -> Image.Image:
    """Converts print colours through their ICC profile to sRGB, or plainly without a usable one."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(opened.info["icc_profile"]))
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(opened, profile, srgb, outputMode="RGB")
    except (KeyError, OSError, ImportError, ImageCms.PyCMSError):
        return opened.convert("RGB")
