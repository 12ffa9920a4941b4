"""Reads and writes image files and masks of all supported formats, and PIL images."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import encoding
from deepfill_jax.pictures.checks import RefusalError
from deepfill_jax.pictures.decoding import (
    MAX_PIXELS,
    Picture,
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
    """Reads an image upright, with the alpha and metadata that are needed to write it again.

    Palette images are converted to RGB, and print colours (CMYK) to sRGB. Greyscale images and
    images with 16 bits per channel keep their type, but 16-bit grey with alpha becomes RGB, and
    HEIC and AVIF images with more than 8 bits per channel are reduced to 8.

    Args:
        source: A JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC file; the suffix does not matter.
            The content of such a file may be given as bytes, as `Encoded`, or as a binary file
            object, which is read from its start. A PIL image is accepted as well; Pillow holds
            colours with 8 bits per channel.
        max_pixels: Maximum number of pixels; larger images are refused before they are decoded.
        as_stored: Ignore the EXIF orientation and return the pixels as they are stored.

    Raises:
        UsageError: The image cannot be read, is an animation, has several pages, is too large, or
            has a type that cannot be preserved. Colours of 16 bits and HEIC need the extra
            `pictures`.
    """
    picture = decode(source, max_pixels, as_stored=as_stored)
    if picture.pixels.dtype not in (np.uint8, np.uint16):
        raise UsageError(
            f"{describe(source)} holds {picture.pixels.dtype} values, whose range is unknown; save "
            "it with 8 or 16 bits per channel."
        )
    return picture


def split_hole(picture: Picture) -> tuple[Picture, np.ndarray]:
    """Uses the alpha channel of an image, which must have one, as its mask.

    Returns:
        The image with `Picture.kept_share` set and a constant alpha, the highest value of its alpha
        channel; and the hole, bool [H, W, 1], which is true where alpha is below that value.
    """
    alpha = picture.alpha
    assert alpha is not None
    # The hole is the whole image if all pixels are transparent.
    highest = alpha.max() or opaque(alpha)
    kept = alpha / np.float32(highest)
    return replace(picture, alpha=np.full_like(alpha, highest), kept_share=kept), kept < 1


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a mask [H, W, 1] by nearest-neighbour interpolation."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for old, new in zip(mask.shape[:2], (height, width), strict=True)
    )
    return np.ascontiguousarray(mask[rows][:, columns])


def write(path: str | Path, pixels: np.ndarray, like: Picture) -> None:
    """Encodes an image as `encode` does and writes the file atomically.

    Args:
        path: The file to write; its suffix determines the format.
        pixels: Pixels with the shape and type of `like.pixels`.
        like: The input image, as `read` returned it.

    Raises:
        UsageError: `encode` refuses the image, or the file cannot be written.
    """
    path = Path(path)
    encoded = encode(path, pixels, like)
    with atomic_write(path, make_parents=False) as unfinished:
        unfinished.write_bytes(encoded)


def encode(name: str | Path, pixels: np.ndarray, like: Picture) -> bytes:
    """Encodes pixels as an image file with the alpha and metadata of the input image.

    PNG, TIFF, BMP and WebP are lossless; TIFF is not compressed, and grey in WebP becomes RGB. If
    `like` was a JPEG, a JPEG is written with its quantization tables, pixel order and orientation
    tag; otherwise it is written at quality 95. `left_out` names the metadata that a format cannot
    store. Thumbnails and maker notes are never kept, because they may show the original content
    of the hole. The output is deterministic.

    Args:
        name: The file name; its suffix determines the format, and messages begin with it.
        pixels: Pixels with the shape and type of `like.pixels`.
        like: The input image, as `read` returned it.

    Raises:
        UsageError: The format is unknown or cannot hold alpha, a colour profile or 16 bits.
    """
    expected = like.pixels
    if pixels.shape != expected.shape or pixels.dtype != expected.dtype:
        raise UsageError(
            f"{name} needs pixels of {expected.dtype} {expected.shape}, like the input image, not "
            f"{pixels.dtype} {pixels.shape}."
        )
    try:
        return encoding.encode(pixels, like, Path(name).suffix)
    except RefusalError as error:
        raise UsageError(f"{name} {error}.") from error
    except Exception as error:  # Pillow's writers raise many kinds.
        raise UsageError(f"{name} cannot be written: {reason(error)}.") from error


def check_writable(name: str | Path, like: Picture) -> None:
    """Checks, before an image is inpainted, that `encode` can write the result.

    Args:
        name: The file name; its suffix determines the format, and the message begins with it.
        like: The input image, as `read` returned it, with an opaque hole.

    Raises:
        UsageError: The format is unknown or cannot hold the image, as for `encode`.
    """
    try:
        encoding.check(like, Path(name).suffix)
    except RefusalError as error:
        raise UsageError(f"{name} {error}.") from error


def left_out(name: str | Path, like: Picture) -> tuple[str, ...]:
    """Names the metadata of the input file that the format of `name`'s suffix cannot store.

    Examples are "thumbnail", "EXIF" and "text 'Title'". Entries that describe the pixel layout are
    not listed.
    """
    return encoding.left_out(like, Path(name).suffix)


def size(pixels: np.ndarray) -> str:
    """Formats the size of [H, W, ...] as width x height, for messages."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
