"""Reads an image with its mask and sketch, files or arrays, and checks that they fit."""

from typing import NamedTuple

import numpy as np

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Source, hole_of_values, read, read_mask, size

Picture = Source | np.ndarray


class Inputs(NamedTuple):
    """One picture to complete, as arrays."""

    pixels: np.ndarray  # [H, W, 1] or [H, W, 3] of uint8, uint16 or floats in [-1, 1].
    hole: np.ndarray  # bool [H, W, 1]
    opacity: np.ndarray | None  # [H, W, 1], for the result.
    shape: tuple[int, ...]  # Of the result.
    sketch: np.ndarray | None = None  # bool [H, W, 1], of guided models.

    def shaped(self, pixels: np.ndarray) -> np.ndarray:
        """The result of these pixels."""
        if self.opacity is not None:
            pixels = np.concatenate([pixels, self.opacity], axis=2)
        return pixels.reshape(self.shape)


def read_inputs(image: Picture, mask: Picture | None) -> Inputs:
    """Reads a picture and its mask and checks that they fit."""
    if isinstance(image, Source):
        picture = read(image)
        height, width, channels = picture.pixels.shape
        pixels, opacity = picture.pixels.repeat(3 // channels, axis=2), picture.alpha
        shape, kept = (height, width, 3), None
    else:
        pixels, opacity = _check(np.asarray(image))
        kept = opacity if mask is not None else None
        shape = np.shape(image) if opacity is None or kept is not None else pixels.shape
    if mask is not None:
        hole = read_area("mask", mask, pixels)
    elif opacity is not None:
        full = np.iinfo(opacity.dtype).max if opacity.dtype.kind == "u" else 1.0
        hole = opacity < full / 2
    else:
        raise UsageError("The image has no opacity that could say where its hole is; give a mask.")
    if pixels.dtype.kind == "f" and not (np.abs(pixels) <= 1).all(where=~hole):
        raise UsageError("Outside its hole, an image of floats must be in [-1, 1].")
    return Inputs(pixels, hole, kept, shape)


def read_area(name: str, source: Picture, pixels: np.ndarray) -> np.ndarray:
    """Reads a mask or a sketch, bool [H, W, 1], and checks that it has the size of the pixels."""
    area = read_mask(source) if isinstance(source, Source) else hole_of_values(source)
    if pixels.shape[:2] != area.shape[:2]:
        raise UsageError(
            f"The {name} is {size(area)} pixels, the image {size(pixels)} (width x height); "
            f"a {name} needs its image's size."
        )
    return area


def _check(image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Parts an array into pixels [H, W, 1 or 3] and opacity, [H, W, 1] or None."""
    pixels = image[..., np.newaxis] if image.ndim == 2 else image
    is_picture = pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) and pixels.size
    if not is_picture or not (image.dtype in (np.uint8, np.uint16) or image.dtype.kind == "f"):
        raise UsageError(
            "An image array must be [H, W], or [H, W, C] with 1 (grey), 3 (RGB) or 4 (RGB and "
            "opacity) channels, of uint8, uint16 or floats in [-1, 1], not "
            f"{image.dtype} {image.shape}."
        )
    return (pixels[..., :3], pixels[..., 3:]) if pixels.shape[2] == 4 else (pixels, None)
