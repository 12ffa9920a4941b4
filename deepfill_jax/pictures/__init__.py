"""Pictures and masks as people have them: files of many kinds, and PIL pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import encoding
from deepfill_jax.pictures.decoding import (
    MAX_PIXELS,
    Picture,
    RefusalError,
    decode,
    describe,
    reason,
)
from deepfill_jax.pictures.formats import READABLE, WRITABLE, format_of, own_suffix
from deepfill_jax.pictures.mask_options import ORIENTATIONS, MaskOptions, Orientation
from deepfill_jax.pictures.masks import (
    check_hole,
    hole_of_picture,
    hole_of_values,
    opaque,
    read_mask,
)
from deepfill_jax.pictures.metadata import upright
from deepfill_jax.pictures.sources import Encoded, Source

__all__ = [
    "MAX_PIXELS",
    "ORIENTATIONS",
    "READABLE",
    "WRITABLE",
    "Encoded",
    "MaskOptions",
    "Orientation",
    "Picture",
    "Source",
    "check_hole",
    "check_writable",
    "describe",
    "encode",
    "format_of",
    "hole_of_picture",
    "hole_of_values",
    "left_out",
    "opaque",
    "own_suffix",
    "read",
    "read_mask",
    "resize_mask",
    "size",
    "split_hole",
    "upright",
    "write",
]


def read(source: Source, *, max_pixels: int = MAX_PIXELS, as_stored: bool = False) -> Picture:
    """Reads a picture, upright, with what is needed to write it again.

    Palettes become RGB, print colours (CMYK) become sRGB. Grey stays grey, 16 bits stay 16; but
    16-bit grey with alpha becomes RGB, and HEIC and AVIF of more than 8 bits are cut to 8.

    Args:
        source: A JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC file, whatever its suffix, or
            what is in one: bytes, `Encoded`, or a binary file object, which is read from its
            start; or a PIL picture, with the 8 bits a colour channel that Pillow holds.
        max_pixels: What is larger is refused before it is decoded.
        as_stored: Leave the pixels as they are stored, whatever the EXIF orientation.

    Raises:
        UsageError: It cannot be read, is an animation or has pages, is too large, or is of a kind
            that cannot be kept. Colours of 16 bits and HEIC need the extra `pictures`.
    """
    picture = decode(source, max_pixels, as_stored=as_stored)
    if picture.pixels.dtype not in (np.uint8, np.uint16):
        raise UsageError(
            f"{describe(source)} holds {picture.pixels.dtype} values, whose range is unknown; save "
            "it with 8 or 16 bits a channel."
        )
    return picture


def split_hole(picture: Picture) -> tuple[Picture, np.ndarray]:
    """Takes the opacity of a picture as its mask.

    Returns:
        The picture, everywhere as opaque as its most opaque pixels, with `Picture.kept_share`; and
        its hole: bool [H, W, 1], true where it is less opaque than they are.
    """
    highest = picture.alpha.max() or opaque(picture.alpha)  # All transparent: all is hole.
    kept = picture.alpha / np.float32(highest)
    return replace(picture, alpha=np.full_like(picture.alpha, highest), kept_share=kept), kept < 1


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Gives a mask [H, W, 1] another size by taking the nearest pixel."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for old, new in zip(mask.shape[:2], (height, width), strict=True)
    )
    return np.ascontiguousarray(mask[rows][:, columns])


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
    JPEG is compressed as `like` was, and lies as it lay, with the orientation tag; if that was
    none, hardly. `left_out` names the metadata that a format loses; thumbnails and maker's notes,
    which may show what was in a hole, are never kept. The same pixels make the same bytes.

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


def check_writable(name: str | Path, like: Picture) -> None:
    """Checks, before the work, that `encode` can write a completed picture.

    Args:
        name: Its suffix chooses the format; the message begins with it.
        like: What `read` returned, opaque where the hole was.

    Raises:
        UsageError: As of `encode`.
    """
    try:
        encoding.check(like, Path(name).suffix)
    except RefusalError as error:
        raise UsageError(f"{name} {error}.") from error


def left_out(name: str | Path, like: Picture) -> tuple[str, ...]:
    """Names what a file of the suffix of `name` loses of what `like` was read from.

    Such as "thumbnail", "EXIF" or "text 'Title'"; without those that are about pixels.
    """
    return encoding.left_out(like, Path(name).suffix)


def size(pixels: np.ndarray) -> str:
    """Width x height of [H, W, ...], for messages."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
