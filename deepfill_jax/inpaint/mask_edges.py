"""Dilation of a hole, and feathering of the completion at its border.

Masks are bool [H, W, 1], true in the hole; lengths are in pixels of the image.
"""

import numpy as np
import scipy  # Loads scipy.ndimage when it is first used.


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilates the hole by a disc: adds all pixels at most `radius` pixels away."""
    if radius == 0 or not mask.any():
        return mask
    return scipy.ndimage.distance_transform_edt(~mask[..., 0])[..., np.newaxis] <= radius


def feather(mask: np.ndarray, dilated: np.ndarray, width: int) -> np.ndarray:
    """Returns the weight of the completion in each pixel, float32 [H, W, 1] in [0, 1].

    The weight is 1 in the hole and 0 outside the dilated hole. In the rim between them, it grows
    over `width` pixels from the outside.
    """
    if width == 0 or dilated.all():
        return dilated.astype(np.float32)
    # The outermost pixels of the rim have distance 1, so their weight is above 0.
    depth = scipy.ndimage.distance_transform_edt(np.pad(dilated[..., 0], 1, mode="edge"))[
        1:-1, 1:-1
    ]
    rim = np.minimum(depth / (width + 1), 1.0).astype(np.float32)[..., np.newaxis]
    return np.where(mask, np.float32(1.0), rim)
