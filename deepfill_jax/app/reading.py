"""Reads uploaded images, masks and sketches, and names the results."""

from pathlib import Path, PurePosixPath

import numpy as np

from deepfill_jax import pictures
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import WRITABLE, Encoded, Picture, size

FORMATS = ("png", "same")
_NAME = 80  # Maximum length of file names, in characters; longer ones keep their end.


def read(
    image: Encoded,
    mask: Encoded | None,
    sketch: Encoded | None = None,
    *,
    max_pixels: int = pictures.MAX_PIXELS,
) -> tuple[Picture, np.ndarray, np.ndarray | None]:
    """Reads a picture, its hole, bool [H, W, 1], and its sketch, if it has one, the same.

    Args:
        image: Without a mask, the hole is what is transparent in it, if it has transparency.
        mask: See `pictures.read_mask`.
        sketch: Lines, read as masks are.
        max_pixels: What is larger is refused.

    Raises:
        UsageError: One of them cannot be used, or they do not fit.
    """
    picture = pictures.read(image, max_pixels=max_pixels)

    def fitting(kind: str, source: Encoded) -> np.ndarray:
        area = pictures.read_mask(source, max_pixels=max_pixels)
        if area.shape[:2] != picture.pixels.shape[:2]:
            raise UsageError(
                f"{source.name} is {size(area)}, but {image.name} is {size(picture.pixels)} (width "
                f"x height); a {kind} needs its picture's size."
            )
        return area

    if mask is not None:
        hole = fitting("mask", mask)
    elif picture.alpha is not None:
        picture, hole = pictures.split_hole(picture)
    else:
        hole = np.zeros((*picture.pixels.shape[:2], 1), bool)
    return picture, hole, None if sketch is None else fitting("sketch", sketch)


def result_name(name: str, format: str) -> str:
    """Returns what the result of a picture of this name is called, in one of `FORMATS`."""
    path = Path(name)
    return f"{path.stem}_completed{path.suffix if format == 'same' else '.png'}"


def can_keep(name: str) -> bool:
    """Whether a picture of this name can be written in its own format, and that is not PNG."""
    return WRITABLE.get(Path(name).suffix.lower(), "PNG") != "PNG"


def plain_name(filename: str | None) -> str:
    """Returns a client's name for a file as it may stand in messages and name the result."""
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    return "".join(c for c in name if c.isprintable())[-_NAME:] or "picture"
