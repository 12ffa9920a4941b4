"""Orients a mask that was drawn on the stored pixels of an image with an EXIF orientation.

Cameras store pixels in the orientation of the sensor, and record the rotation in EXIF. Images are
read upright. A tool that ignores EXIF writes masks in the orientation of the stored pixels.
"""

import numpy as np

from deepfill_jax.pictures import Picture, upright
from deepfill_jax.pictures.mask_options import Orientation

_SWAPS_SIDES = (5, 6, 7, 8)  # EXIF orientations that swap width and height.


def orient(
    area: np.ndarray, own: int, picture: Picture, orientation: Orientation
) -> tuple[np.ndarray, bool]:
    """Turns a mask or sketch like its image if it was drawn on the stored pixels.

    Args:
        area: The mask or sketch, bool [h, w, 1].
        own: EXIF orientation of the mask file, which has been applied; 1 if it has none.
        picture: The image.
        orientation: The pixels on which the mask was drawn. "auto": if EXIF swaps the sides of an
            oblong image, the longer side of the mask decides; otherwise the upright image is
            assumed.

    Returns:
        The mask for the upright image, and whether its orientation is ambiguous.
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
    """Returns whether one of mask and image is landscape and the other is portrait."""
    return longer_side(area) * longer_side(picture.pixels) < 0


def longer_side(pixels: np.ndarray) -> int:
    """Returns 1 if [H, W, C] is wider than high, -1 if it is higher than wide, 0 if square."""
    height, width = pixels.shape[:2]
    return (width > height) - (width < height)
