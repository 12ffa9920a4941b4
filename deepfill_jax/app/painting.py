"""What a browser shows of a picture, and what was painted on that."""

import numpy as np
import scipy
from PIL import Image

from deepfill_jax import pictures
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Encoded, Picture

SHOWN = 1280  # Pixels of the longest side in the browser; a picture is filled at its own size.
# The brushes, told apart by their colours, at any opacity.
HOLE = (255, 64, 64)
LINE = (64, 64, 255)
OPACITY = 0.6


def painted(layer: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Finds hole and lines in a layer of the editor, a PNG file: bool [H, W, 1] each.

    What is nearer to the line's colour than to the hole's is a line. As a line hides what it is
    painted over, it is hole as well, if it is connected to the hole's colour; if not, it is none,
    and counts where another hole is.

    Raises:
        UsageError: It is no such file.
    """
    picture = pictures.read(Encoded(layer, "What was painted"), max_pixels=4 * SHOWN**2)
    if picture.alpha is None:
        raise UsageError("What was painted has no transparency; paint it on the page.")
    is_painted = picture.alpha[..., 0] > 0
    to_hole, to_line = (
        np.square(picture.pixels - np.float32(colour)).sum(axis=2) for colour in (HOLE, LINE)
    )
    is_line = is_painted & (to_line < to_hole)
    parts, _ = scipy.ndimage.label(is_painted, np.ones((3, 3)))
    hole = is_painted & np.isin(parts, parts[is_painted & ~is_line])
    return hole[..., np.newaxis], is_line[..., np.newaxis]


def preview(picture: Picture, hole: np.ndarray | None = None) -> Image.Image:
    """Makes what a browser shows: RGB, at most `SHOWN` pixels a side, the hole in its colour."""
    pixels = picture.pixels
    scale = min(1.0, SHOWN / max(pixels.shape[:2]))
    size = tuple(max(round(scale * side), 1) for side in pixels.shape[1::-1])

    def small(x: np.ndarray) -> np.ndarray:
        bytes_ = (x >> 8).astype(np.uint8) if x.dtype == np.uint16 else x
        one = Image.fromarray(bytes_[..., 0] if bytes_.shape[2] == 1 else bytes_)
        resized = np.asarray(one.resize(size, Image.Resampling.BOX), np.float32)
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
