"""Pictures and masks as people have them: files of many kinds, and PIL pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import encoding
from deepfill_jax.pictures.decoding import (
    MAX_PIXELS,
    READABLE,
    Encoded,
    Picture,
    RefusalError,
    Source,
    decode,
    describe,
    reason,
)
from deepfill_jax.pictures.encoding import WRITABLE

__all__ = [
    "MAX_PIXELS",
    "READABLE",
    "WRITABLE",
    "Encoded",
    "Picture",
    "Source",
    "describe",
    "encode",
    "hole_of_values",
    "opaque",
    "read",
    "read_mask",
    "resize_mask",
    "size",
    "split_hole",
    "write",
]

_LUMA = np.array([19595, 38470, 7471], np.uint32)  # 65536ths, of ITU-R BT.601, as Pillow's.


def read(source: Source, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads a picture, upright, with what is needed to write it again.

    Palettes become RGB, print colours (CMYK) become sRGB. Grey stays grey, 16 bits stay 16; but
    16-bit grey with alpha becomes RGB, and HEIC and AVIF of more than 8 bits are cut to 8.

    Args:
        source: A JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC file, whatever its suffix, or
            what is in one, `Encoded`; or a PIL picture, with the 8 bits a colour channel that
            Pillow holds.
        max_pixels: What is larger is refused before it is decoded.

    Raises:
        UsageError: It cannot be read, is an animation or has pages, is too large, or is of a kind
            that cannot be kept. Colours of 16 bits and HEIC need the extra `pictures`.
    """
    picture = decode(source, max_pixels)
    if picture.pixels.dtype not in (np.uint8, np.uint16):
        raise UsageError(
            f"{describe(source)} holds {picture.pixels.dtype} values, whose range is unknown; save "
            "it with 8 or 16 bits a channel."
        )
    return picture


def read_mask(
    source: Source, *, threshold: float = 0.5, invert: bool = False, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Reads a mask as bool [H, W, 1], true in the hole.

    White is the hole, as in `hole_of_values`; colours count by their luma. What is transparent is
    no hole. One colour alone, painted on a transparent layer, is the hole where it is opaque,
    whatever the colour.

    Args:
        source: As for `read`, and also whole or real numbers in a TIFF file.
        threshold: See `hole_of_values`.
        invert: The hole is what would otherwise be known, as in masks with black holes.
        max_pixels: As for `read`.

    Raises:
        UsageError: It cannot be read, or its values are no mask's.
    """
    picture = decode(source, max_pixels)
    try:
        hole = _hole(picture.pixels, picture.alpha, threshold)
    except UsageError as error:
        raise UsageError(f"{describe(source)} cannot be used as a mask: {error}") from error
    return ~hole if invert else hole


def hole_of_values(values: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """Reads a mask array as bool [H, W, 1], true in the hole: as `read_mask` reads such a file.

    The scale is the smallest of 1, 255 and 65535 that holds the largest value. So masks of 0 and 1,
    of 0 and 255, of bool and of 16 bits mean what they look like, as do greys and probabilities.

    Args:
        values: Numbers [H, W], [H, W, 1] or RGB [H, W, 3]; or RGB with opacity [H, W, 4], of uint8,
            uint16 or floats in [0, 1].
        threshold: Part of the scale above which a value is hole: with 0.5, 128 of 255 is, 127 not.

    Raises:
        UsageError: The values are of another shape, are not numbers, or are above 65535.
    """
    values = np.asarray(values)
    pixels = values[..., np.newaxis] if values.ndim == 2 else values
    has_opacity = pixels.ndim == 3 and pixels.shape[2] == 4
    is_mask = pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) and pixels.size
    if not is_mask or values.dtype.kind not in ("uf" if has_opacity else "buif"):
        raise UsageError(
            "A mask array must be numbers [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGB and "
            f"opacity, unsigned or floats), not {values.dtype} {values.shape}."
        )
    return _hole(pixels[..., :3], pixels[..., 3:] if has_opacity else None, threshold)


def _hole(pixels: np.ndarray, alpha: np.ndarray | None, threshold: float) -> np.ndarray:
    if not 0 <= threshold < 1:
        raise UsageError(f"A mask's threshold must be from 0 to below 1, not {threshold}.")
    pixels = np.ascontiguousarray(pixels)  # A view of RGBA takes ten times as long below.
    scale, grey = _scale(pixels), _luma(pixels)
    if alpha is None or (alpha == opaque(alpha)).all():
        return grey > threshold * scale
    opacity = alpha / np.float32(opaque(alpha))
    if (alpha == 0).any():
        painted = pixels[alpha[..., 0] > 0]
        if len(painted) and (painted == painted[0]).all():
            return opacity > threshold
    return grey / np.float32(scale) * opacity > threshold


def _scale(values: np.ndarray) -> int:
    largest = values.max()
    for scale in (1, 255, 65535):
        if largest <= scale:
            return scale
    raise UsageError(f"A mask's values must be numbers up to 65535, not {largest}.")


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Grey [H, W, 1] of grey or RGB; of whole numbers rounded, as Pillow does."""
    if pixels.shape[2] == 1:
        return pixels
    if pixels.dtype == np.uint8:  # Ten times as fast as the sum below, with the same result.
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., np.newaxis]
    if pixels.dtype.kind == "f":
        return (pixels @ (_LUMA / 65536).astype(pixels.dtype))[..., np.newaxis]
    wide = np.uint32 if pixels.dtype.kind == "u" else np.int64
    red, green, blue = (
        pixels[..., channel].astype(wide) * wide(_LUMA[channel]) for channel in range(3)
    )
    return (red + green + blue + wide(32768) >> wide(16))[..., np.newaxis]


def opaque(alpha: np.ndarray) -> float:
    """The value of full opacity: 255, 65535, or 1 of floats."""
    return np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1.0


def split_hole(picture: Picture) -> tuple[Picture, np.ndarray]:
    """Parts a picture with alpha into the picture that fills its hole, and that hole.

    Returns:
        The picture, opaque in the hole, and bool [H, W, 1], true where alpha is below one half.
    """
    full = opaque(picture.alpha)
    hole = picture.alpha < full / 2
    alpha = np.where(hole, full, picture.alpha).astype(picture.alpha.dtype)
    return replace(picture, alpha=alpha), hole


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Gives a mask [H, W, 1] another size by taking the nearest pixel."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for old, new in zip(mask.shape[:2], (height, width), strict=True)
    )
    return mask[rows][:, columns]


def write(path: str | Path, pixels: np.ndarray, like: Picture) -> None:
    """Writes what `encode` makes; nobody who reads the path sees half a file.

    Args:
        path: Its suffix chooses the format.
        pixels: Of the shape and type of `like.pixels`.
        like: What `read` returned.

    Raises:
        UsageError: As of `encode`; or the file cannot be written.
    """
    path = Path(path)
    encoded = encode(path, pixels, like)
    with atomic_write(path, make_parents=False) as unfinished:
        unfinished.write_bytes(encoded)


def encode(name: str | Path, pixels: np.ndarray, like: Picture) -> bytes:
    """Makes a file of pixels with the alpha and metadata of the picture that they were made from.

    PNG, TIFF, BMP and WebP are lossless; TIFF is not compressed, and grey in WebP becomes RGB.
    JPEG is compressed as `like` was; if that was none, hardly. BMP loses EXIF, WebP the resolution;
    thumbnails and maker's notes, which may show what was in a hole, are never kept. The same pixels
    make the same bytes.

    Args:
        name: Its suffix chooses the format; messages begin with it.
        pixels: Of the shape and type of `like.pixels`.
        like: What `read` returned.

    Raises:
        UsageError: The format is unknown or cannot hold alpha, a colour profile or 16 bits.
    """
    expected = like.pixels
    if pixels.shape != expected.shape or pixels.dtype != expected.dtype:
        raise UsageError(
            f"{name} must be written like a picture of {expected.dtype} {expected.shape}, not of "
            f"{pixels.dtype} {pixels.shape}."
        )
    try:
        return encoding.encode(pixels, like, Path(name).suffix)
    except RefusalError as error:
        raise UsageError(f"{name} {error}.") from error
    except Exception as error:  # Pillow's writers raise many kinds.
        raise UsageError(f"{name} cannot be written: {reason(error)}.") from error


def size(pixels: np.ndarray) -> str:
    """Width x height of [H, W, ...], for messages."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
