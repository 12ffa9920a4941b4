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
    """Reads a picture, its hole and its sketch, if it has one.

    Args:
        image: Without a mask, the hole is what is transparent in it; none, if nothing is.
        mask: See `pictures.read_mask`.
        sketch: Lines, read as masks are.
        options: How the mask is read, checked and fitted to the picture.
        max_pixels: What is larger is refused.

    Raises:
        UsageError: One of them cannot be used, or they do not fit.
    """
    inputs = read_inputs(image, mask, sketch, options, max_pixels=max_pixels)
    if inputs.hole is None:  # The picture may be extended instead.
        return inputs._replace(hole=np.zeros((*inputs.picture.pixels.shape[:2], 1), bool))
    return inputs


def result_name(name: str, format: Format, own: str) -> str:
    """Returns what the result of a picture of this name is called.

    Args:
        name: The picture's name, with or without a suffix.
        format: "same" for the picture's own format.
        own: That format, by the file's content: `Picture.format`.
    """
    path = Path(name)
    return f"{path.stem}_completed{own_suffix(path.suffix, own) if format == 'same' else '.png'}"


def mask_name(name: str) -> str:
    """Returns the file name of the mask of an image; `deepfill inpaint` finds it by this name."""
    return f"{Path(name).stem}_mask.png"


def can_keep(own: str) -> bool:
    """Whether a picture can be written in its own format, and that is not PNG."""
    return own != "PNG" and own in WRITABLE.values()


def plain_name(filename: str | None) -> str:
    """Returns a client's name for a file as it may stand in messages and name the result."""
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    return "".join(c for c in name if c.isprintable())[-_NAME:] or "picture"
