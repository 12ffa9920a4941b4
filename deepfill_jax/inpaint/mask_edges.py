"""Dilation of a hole, and feathering of the completion at its border.

Masks are bool [H, W, 1], true in the hole; lengths are in pixels of the image. The work is done in
boxes around the holes, so that its time depends on their area and not on the image's.
"""

import numpy as np

from deepfill_jax.inpaint.boxes import distance_transform, hole_boxes

CELL = 32  # Holes that touch in a grid of this many pixels share a box.


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilates the hole by a disc: adds all pixels at most `radius` pixels away."""
    if radius == 0 or not mask.any():
        return mask
    dilated = mask.copy()
    for box in hole_boxes(mask, CELL):
        area = box.padded(radius, mask.shape).slices
        dilated[area] |= (distance_transform(~mask[area][..., 0]) <= radius)[..., np.newaxis]
    return dilated


def feather(mask: np.ndarray, dilated: np.ndarray, width: int) -> np.ndarray:
    """Returns the weight of the completion in each pixel, float32 [H, W, 1] in [0, 1].

    The weight is 1 in the hole and 0 outside the dilated hole. In the rim between them, it grows
    over `width` pixels from the outside.
    """
    weight = dilated.astype(np.float32)
    if width == 0 or dilated.all():
        return weight
    for box in hole_boxes(dilated, CELL):
        area = box.padded(1, mask.shape).slices
        # The outermost pixels of the rim have distance 1, so their weight is above 0. Beyond the
        # edge of the image, the rim continues.
        depth = distance_transform(np.pad(dilated[area][..., 0], 1, mode="edge"))[1:-1, 1:-1]
        rim = np.minimum(depth / (width + 1), 1.0)[..., np.newaxis]
        weight[area] = np.where(mask[area], 1, np.where(dilated[area], rim, weight[area]))
    return weight
