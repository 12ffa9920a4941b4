"""The hole and the sketch that are painted on a preview in the browser."""

import numpy as np
import scipy

from deepfill_jax import pictures
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Encoded
from deepfill_jax.pictures.preview import HOLE, PREVIEW_SIZE

# The colour of the brush for the sketch; brushes are distinguished by colour at any opacity.
LINE = (64, 64, 255)


def painted(layer: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Finds the hole and the sketch in a PNG file of the editor's layer: bool [H, W, 1] each.

    Painted pixels whose colour is nearer to the line colour than to the hole colour belong to the
    sketch. Because a line hides the colour below it, a line that is connected to pixels of the hole
    colour belongs to the hole as well. A line apart from them does not enlarge the hole; it takes
    effect where it lies in a hole from another source, such as an uploaded mask.

    Raises:
        UsageError: The file cannot be read or has no transparency.
    """
    picture = pictures.read(Encoded(layer, "The painted layer"), max_pixels=4 * PREVIEW_SIZE**2)
    if picture.alpha is None:
        raise UsageError("The painted layer has no transparency; paint it in the web UI.")
    is_painted = picture.alpha[..., 0] > 0
    to_hole, to_line = (
        np.square(picture.pixels - np.array(colour, np.float32)).sum(axis=2)
        for colour in (HOLE, LINE)
    )
    is_line = is_painted & (to_line < to_hole)
    parts, _ = scipy.ndimage.label(is_painted, np.ones((3, 3)))
    hole = is_painted & np.isin(parts, parts[is_painted & ~is_line])
    return hole[..., np.newaxis], is_line[..., np.newaxis]
