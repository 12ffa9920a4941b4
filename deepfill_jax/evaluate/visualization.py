"""What networks did, as colours: where a completion errs, and from where attention copied.

Pictures are uint8 [..., H, W, 3], masks [..., H, W, 1] with 1 in the hole.
"""

import numpy as np

from deepfill_jax.image import composite

FULL_ERROR = 128  # Of 255: the difference from which on an error map is white.
FULL_DISTANCE = 0.5  # Of the map's longer side: the offset from which on colours are saturated.
_DIMMED = 0.35  # Known pixels below offsets, whose white would be mistaken for a copy from here.


def error_map(completed: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The difference |completed - image|, its mean over the channels, as uint8 [..., H, W, 3].

    Black is none, then red and yellow, and white is `FULL_ERROR` or more. Both pictures are in
    0..255, of any type.
    """
    difference = np.abs(np.asarray(completed, np.float32) - np.asarray(image, np.float32))
    heat = 3.0 * difference.mean(axis=-1, keepdims=True) / FULL_ERROR
    return _to_bytes(heat - np.arange(3))


def offset_colours(offsets: np.ndarray) -> np.ndarray:
    """Attention's offsets (down, right) [..., h, w, 2] as uint8 [..., h, w, 3].

    The hue is the direction, the saturation the distance, up to `FULL_DISTANCE`: white copies from
    its own place, pink from the lower left and green from the upper right, as in figure 4 of Yu et
    al. 2018 (https://arxiv.org/abs/1801.07892).
    """
    down, right = np.moveaxis(np.asarray(offsets, np.float32), -1, 0)
    full = FULL_DISTANCE * max(offsets.shape[-3:-1])
    saturation = np.minimum(np.hypot(down, right) / full, 1.0)
    hue = np.arctan2(-down, -right) / (2 * np.pi)
    # Of full value: red, green and blue lack what is far from their own hue, 0, 1/3 and 2/3.
    near = (6.0 * hue[..., np.newaxis] + np.array([5, 3, 1])) % 6.0
    lacking = np.clip(np.minimum(near, 4.0 - near), 0.0, 1.0)
    return _to_bytes(1.0 - saturation[..., np.newaxis] * lacking)


def offset_map(offsets: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours of offsets [..., h, w, 2] in the hole of a picture, dim and grey around it."""
    factor = image.shape[-2] // offsets.shape[-2]
    colours = offset_colours(offsets).repeat(factor, axis=-3).repeat(factor, axis=-2)
    grey = _DIMMED * image.mean(axis=-1, keepdims=True)
    return np.asarray(composite(colours, grey.astype(np.uint8), mask))


def offset_wheel(size: int) -> np.ndarray:
    """The legend of `offset_colours`, uint8 [size, size, 3]: each place's offset from the middle.

    Its circle has the radius `FULL_DISTANCE`.
    """
    positions = np.arange(size) - (size - 1) / 2
    return offset_colours(np.stack(np.meshgrid(positions, positions, indexing="ij"), axis=-1))


def error_scale(width: int, height: int) -> np.ndarray:
    """The legend of `error_map`, uint8 [height, width, 3]: from no error to `FULL_ERROR`."""
    errors = np.broadcast_to(np.linspace(0, FULL_ERROR, width)[:, np.newaxis], (height, width, 3))
    return error_map(errors, np.zeros_like(errors))


def _to_bytes(x: np.ndarray) -> np.ndarray:
    return np.rint(255.0 * np.clip(x, 0.0, 1.0)).astype(np.uint8)
