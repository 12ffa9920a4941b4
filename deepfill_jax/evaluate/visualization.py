"""Visualization of errors and of attention's offsets as colours.

Images are uint8 [..., H, W, 3], masks [..., H, W, 1] with 1 in the hole.
"""

import numpy as np

from deepfill_jax.image import composite

FULL_ERROR = 128  # Smallest difference, of 255, that is white in an error map.
FULL_DISTANCE = 0.5  # Length, in units of the map's longer side, from which colours are saturated.
# Known pixels are multiplied by this, because white would be mistaken for an offset of 0.
_DIMMED = 0.35


def error_map(completed: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Draws the error |completed - image|, the mean over channels, as uint8 [..., H, W, 3].

    Colours range from black for no error over red and yellow to white for `FULL_ERROR` or more.
    Both images are in 0..255, of any dtype.
    """
    difference = np.abs(np.asarray(completed, np.float32) - np.asarray(image, np.float32))
    heat = 3.0 * difference.mean(axis=-1, keepdims=True) / FULL_ERROR
    return _to_bytes(heat - np.arange(3))


def offset_colours(offsets: np.ndarray) -> np.ndarray:
    """Draws attention's offsets (down, right), [..., h, w, 2], as uint8 [..., h, w, 3].

    The hue is the direction, the saturation the distance, up to `FULL_DISTANCE`. White positions
    copy from themselves, pink ones from the lower left and green ones from the upper right, as in
    figure 4 of Yu et al. 2018 (https://arxiv.org/abs/1801.07892).
    """
    down, right = np.moveaxis(np.asarray(offsets, np.float32), -1, 0)
    full = FULL_DISTANCE * max(offsets.shape[-3:-1])
    saturation = np.minimum(np.hypot(down, right) / full, 1.0)
    hue = np.arctan2(-down, -right) / (2 * np.pi)
    # HSV to RGB at full value: a channel is reduced by the hue's distance from the channel's own
    # hue, which is 0, 1/3 and 2/3 for red, green and blue.
    near = (6.0 * hue[..., np.newaxis] + np.array([5, 3, 1])) % 6.0
    lacking = np.clip(np.minimum(near, 4.0 - near), 0.0, 1.0)
    return _to_bytes(1.0 - saturation[..., np.newaxis] * lacking)


def offset_map(offsets: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draws offsets, [..., h, w, 2], into the hole of an image; known pixels are dim and grey."""
    factor = image.shape[-2] // offsets.shape[-2]
    colours = offset_colours(offsets).repeat(factor, axis=-3).repeat(factor, axis=-2)
    grey = _DIMMED * image.mean(axis=-1, keepdims=True)
    return composite(colours, grey.astype(np.uint8), mask)


def offset_wheel(size: int) -> np.ndarray:
    """Draws the legend of `offset_colours`, uint8 [size, size, 3].

    Each position shows the colour of its offset from the centre. The circle has the radius
    `FULL_DISTANCE`.
    """
    positions = np.arange(size) - (size - 1) / 2
    return offset_colours(np.stack(np.meshgrid(positions, positions, indexing="ij"), axis=-1))


def error_scale(width: int, height: int) -> np.ndarray:
    """Draws the legend of `error_map`, uint8 [height, width, 3], from no error to `FULL_ERROR`."""
    errors = np.broadcast_to(np.linspace(0, FULL_ERROR, width)[:, np.newaxis], (height, width, 3))
    return error_map(errors, np.zeros_like(errors))


def _to_bytes(x: np.ndarray) -> np.ndarray:
    return np.rint(255.0 * np.clip(x, 0.0, 1.0)).astype(np.uint8)
