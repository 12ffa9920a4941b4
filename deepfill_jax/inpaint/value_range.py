"""Value ranges of images: conversion to [-1, 1], the range of the network, and likely mistakes."""

import numpy as np

from deepfill_jax.errors import UsageError

UNIT = (-1.0, 1.0)
_MIN_VALUES = 64  # Fewer values may all be above 0 by chance.
_MAX_12_BITS = 4095  # Cameras and microscopes store 12 bits in 16.

WARNING = (
    "The known pixels of a float image are all from 0 to 1, but are read as [-1, 1]; pass "
    "value_range=(0, 1), or value_range=(-1, 1) to confirm the range."
)
PREDICT_WARNING = (
    "The known pixels are all from 0 to 1, but predict needs [-1, 1]; map them with 2 * image - 1."
)


def to_unit(
    pixels: np.ndarray, hole: np.ndarray, value_range: tuple[float, float] | None
) -> np.ndarray:
    """Maps a float image from its range to [-1, 1].

    Args:
        pixels: [H, W, C], floats; other types are returned as they are.
        hole: bool [H, W, 1]. Pixels in the hole are not checked.
        value_range: Values of black and white; None: (-1, 1).

    Raises:
        UsageError: A known pixel is outside the range or NaN.
    """
    if pixels.dtype.kind != "f":
        return pixels
    black, white = value_range or UNIT
    # This comparison also rejects NaN outside the hole.
    if not ((pixels >= black) & (pixels <= white)).all(where=~hole):
        raise UsageError(
            f"Outside its hole, a float image must be in [{black:g}, {white:g}]; pass its values "
            "of black and white, such as value_range=(0, 255)."
        )
    if (black, white) == UNIT:
        return pixels
    return (pixels - black) * (2 / (white - black)) - 1


def from_unit(
    pixels: np.ndarray,
    original: np.ndarray,
    changed: np.ndarray,
    value_range: tuple[float, float] | None,
) -> np.ndarray:
    """Maps a result [H, W, C] back from [-1, 1]; keeps `original` exactly where not `changed`."""
    if pixels.dtype.kind != "f" or value_range in (None, UNIT):
        return pixels
    black, white = value_range
    mapped = (pixels + 1) * ((white - black) / 2) + black
    return np.where(changed, mapped.astype(original.dtype), original)


def is_probably_0_to_1(pixels: np.ndarray, hole: np.ndarray) -> bool:
    """Returns whether a float image [..., C], read as [-1, 1], seems to be in [0, 1]."""
    if pixels.dtype.kind != "f":
        return False
    known = np.broadcast_to(~hole, pixels.shape)
    if known.sum() < _MIN_VALUES:
        return False
    low = pixels.min(where=known, initial=np.inf)
    high = pixels.max(where=known, initial=-np.inf)
    return bool(0 <= low < high <= 1)


def dark_16_bits(pixels: np.ndarray, hole: np.ndarray) -> str:
    """Describes a uint16 image [H, W, C] that seems to hold 12 bits or fewer; empty for others.

    Such an image is almost black to the network, whose errors are larger than all of its values.
    """
    known = np.broadcast_to(~hole, pixels.shape)
    if pixels.dtype != np.uint16 or known.sum() < _MIN_VALUES:
        return ""
    highest = pixels.max(where=known, initial=0)
    if not 0 < highest <= _MAX_12_BITS:
        return ""
    return (
        f"has 16 bits per channel, but its known pixels are at most {highest} of 65535, which is "
        "almost black; multiply its values, for example by 16 if they have 12 bits."
    )
