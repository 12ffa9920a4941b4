"""Previews of images and their holes for the browser."""

import numpy as np
from PIL import Image

from deepfill_jax.pictures.decoding import Picture

PREVIEW_SIZE = 1280  # Longest side of previews, in pixels; images are filled at their full size.
HOLE, OPACITY = (255, 64, 64), 0.6  # How holes are shown.


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
