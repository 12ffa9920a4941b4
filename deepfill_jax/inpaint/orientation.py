"""Turns a mask that was drawn on the stored pixels of an image with an EXIF orientation.

Cameras store pixels as the sensor lies and note in EXIF how to turn them. Images are read upright;
a mask of a tool that ignores the note lies as the pixels are stored.
"""

import numpy as np

from deepfill_jax.pictures import Picture, upright
from deepfill_jax.pictures.mask_options import Orientation

_SWAPS_SIDES = (5, 6, 7, 8)  # EXIF orientations that turn by 90 degrees.


def orient(
    area: np.ndarray, own: int, picture: Picture, orientation: Orientation
) -> tuple[np.ndarray, bool]:
    """Turns a mask or sketch as its image was turned, if it was drawn on the stored pixels.

    Args:
        area: The mask or sketch, bool [h, w, 1].
        own: Its own EXIF orientation, by which it is upright already; 1 if it has none.
        picture: The image.
        orientation: What the mask was drawn on. "auto": where the sides of an oblong image are
            swapped, the longer side of the mask decides; elsewhere the upright image is assumed.

    Returns:
        The mask as it lies on the upright image, and whether the other way was as likely.
    """
    turn = picture.orientation
    if turn == 1 or own != 1 or orientation == "upright":
        return area, False
    turned = upright(area, turn)
    if orientation == "stored":
        return turned, False
    sides = longer_side(area), longer_side(picture.pixels)
    if turn in _SWAPS_SIDES and all(sides):
        return (area if sides[0] == sides[1] else turned), False
    return area, not np.array_equal(area, turned)


def is_transposed(area: np.ndarray, picture: Picture) -> bool:
    """Whether a mask lies on its side: one of mask and image is upright, the other is wide."""
    return longer_side(area) * longer_side(picture.pixels) < 0


def longer_side(pixels: np.ndarray) -> int:
    """Returns 1 if [H, W, C] is wider than high, -1 if it is higher than wide, 0 if square."""
    height, width = pixels.shape[:2]
    return (width > height) - (width < height)
