"""Pictures and masks as people have them: files, PIL pictures, arrays."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from deepfill_jax.errors import UsageError

Picture = str | Path | Image.Image | np.ndarray


def read_image(source: Picture) -> np.ndarray:
    """Returns a picture as uint8 [H, W, 3] RGB.

    Args:
        source: A file, which is turned upright by its EXIF orientation; a PIL picture, as it lies;
            or an array that is such a picture already.

    Raises:
        UsageError: The file is no picture, or the array another.
    """
    pixels = _pixels(source, "RGB")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UsageError(
            f"An image array must be uint8 [H, W, 3] in RGB, not {pixels.dtype} {pixels.shape}."
        )
    return pixels


def read_mask(source: Picture) -> np.ndarray:
    """Returns a mask as bool [H, W, 1], true in the hole.

    Values above 127 are the hole; where no value is above 1, those above 0.5 are. So masks of 0
    and 255, of 0 and 1 and of bool mean what they look like, as do greys and probabilities.

    Args:
        source: As for `read_image`, but grey: an array is [H, W] or [H, W, 1], of any numbers.

    Raises:
        UsageError: The file is no picture, or the array another.
    """
    values = _pixels(source, "L")
    if values.ndim == 2:
        values = values[..., np.newaxis]
    is_grey = values.ndim == 3 and values.shape[2] == 1 and values.dtype.kind in "buif"
    if not is_grey or not values.size:
        raise UsageError(
            f"A mask array must be numbers [H, W] or [H, W, 1], not {values.dtype} {values.shape}."
        )
    return values > (127 if values.max() > 1 else 0.5)


def _pixels(source: Picture, mode: str) -> np.ndarray:
    """Reads a file or converts a PIL picture, to a Pillow mode; an array stays as it is."""
    if not isinstance(source, str | Path | Image.Image):
        return np.asarray(source)
    try:
        if isinstance(source, Image.Image):
            return np.asarray(source.convert(mode))
        with Image.open(source) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert(mode))
    except Exception as error:  # Pillow's readers raise many kinds, SyntaxError among them.
        raise UsageError(f"{source} cannot be read as a picture: {error}.") from error


def size(pixels: np.ndarray) -> str:
    """Width x height of [H, W, ...], for messages."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
