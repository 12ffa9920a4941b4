"""Reads uploaded images, masks and sketches, and names the results."""

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from deepfill_jax import pictures
from deepfill_jax.inpaint.inputs import Inputs, read_inputs
from deepfill_jax.pictures import WRITABLE, Encoded, MaskOptions, own_suffix
from deepfill_jax.pictures.mask_options import CHECKED

Format = Literal["png", "same"]
_NAME = 80  # Maximum length of file names, in characters; longer ones keep their end.


def read(
    image: Encoded,
    mask: Encoded | None,
    sketch: Encoded | None = None,
    options: MaskOptions = CHECKED,
    *,
    max_pixels: int = pictures.MAX_PIXELS,
) -> Inputs:
    """Reads an image, its hole and its optional sketch.

    Args:
        image: The image. Without a mask, its transparent pixels are the hole, which may be empty.
        mask: The mask, see `pictures.read_mask`.
        sketch: The sketch, which is read like a mask.
        options: Options for reading and checking the mask and fitting it to the image.
        max_pixels: Maximum number of pixels; larger images are refused.

    Raises:
        UsageError: A file cannot be used, or the mask or sketch does not fit the image.
    """
    inputs = read_inputs(image, mask, sketch, options, max_pixels=max_pixels)
    if inputs.hole is None:  # The request may extend the image instead.
        return inputs._replace(hole=np.zeros((*inputs.picture.pixels.shape[:2], 1), bool))
    return inputs


def result_name(name: str, format: Format, own: str) -> str:
    """Returns the file name of an inpainting result.

    Args:
        name: File name of the input image, with or without a suffix.
        format: "same" for the format of the input image.
        own: Format of the input image, `Picture.format`.
    """
    path = Path(name)
    return f"{path.stem}_completed{own_suffix(path.suffix, own) if format == 'same' else '.png'}"


def mask_name(name: str) -> str:
    """Returns the file name of the mask of an image; `deepfill inpaint` finds it by this name."""
    return f"{Path(name).stem}_mask.png"


def can_keep(own: str) -> bool:
    """Whether an image can be written in the format of its file, other than PNG."""
    return own != "PNG" and own in WRITABLE.values()


def plain_name(filename: str | None) -> str:
    """Sanitises the name of an uploaded file for use in messages and in names of results."""
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    return "".join(c for c in name if c.isprintable())[-_NAME:] or "picture"
