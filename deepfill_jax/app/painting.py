"""Previews for the browser, and the hole and sketch painted on them."""

import numpy as np
import scipy
from PIL import Image

from deepfill_jax import pictures
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Encoded, Picture

PREVIEW_SIZE = 1280  # Longest side of previews, in pixels; images are filled at their full size.
# The brushes, which are distinguished by their colours at any opacity.
HOLE = (255, 64, 64)
LINE = (64, 64, 255)
OPACITY = 0.6


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


def preview(picture: Picture, hole: np.ndarray | None = None) -> Image.Image:
    """Makes an RGB preview with sides of at most `PREVIEW_SIZE`, and the hole in its colour."""
    pixels = picture.pixels
    scale = min(1.0, PREVIEW_SIZE / max(pixels.shape[:2]))
    size = tuple(max(round(scale * side), 1) for side in pixels.shape[1::-1])

    def small(x: np.ndarray) -> np.ndarray:
        bytes_ = (x >> 8).astype(np.uint8) if x.dtype == np.uint16 else x
        image = Image.fromarray(bytes_[..., 0] if bytes_.shape[2] == 1 else bytes_)
        resized = np.asarray(image.resize(size, Image.Resampling.BOX), np.float32)
        return resized.reshape(size[1], size[0], -1)

    image = small(pixels)
    if picture.alpha is not None:
        opacity = small(picture.alpha) / 255
        image = image * opacity + 255 * (1 - opacity)
    if hole is not None and hole.any():
        share = OPACITY * small(hole * np.uint8(255)) / 255
        image = image * (1 - share) + np.array(HOLE) * share
    rgb = np.broadcast_to(image, (size[1], size[0], 3))
    return Image.fromarray(np.rint(rgb).astype(np.uint8))
