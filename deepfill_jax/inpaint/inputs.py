"""Reads an image with its mask and sketch, files or arrays, and checks that they fit."""

from typing import TYPE_CHECKING, NamedTuple, Union

import numpy as np

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import (
    MAX_PIXELS,
    Picture,
    Source,
    describe,
    hole_of_values,
    read,
    read_mask,
    resize_mask,
    size,
    split_hole,
)

if TYPE_CHECKING:
    import jax

# A file, a PIL picture or an array, for an image, a mask or a sketch.
ImageInput = Union[Source, np.ndarray, "jax.Array"]  # noqa: UP007, as a string has no `|`.


class Inputs(NamedTuple):
    """One image to inpaint, as arrays.

    Attributes:
        picture: The image; of an array of floats, its pixels are floats. Opaque in the hole, where
            its transparency was the hole.
        hole: bool [H, W, 1]; None if neither a mask nor transparency says where it is.
        sketch: bool [H, W, 1], true on lines, or None.
    """

    picture: Picture
    hole: np.ndarray | None
    sketch: np.ndarray | None = None


def read_inputs(
    image: ImageInput,
    mask: ImageInput | None = None,
    sketch: ImageInput | None = None,
    *,
    threshold: float = 0.5,
    invert: bool = False,
    resize: bool = False,
    resize_hint: str = "",
    max_pixels: int = MAX_PIXELS,
) -> Inputs:
    """Reads an image, its mask and its sketch, and checks that they have one size.

    Args:
        image: A file or PIL picture, see `pictures.read`; or an array, see `Inpainter.__call__`.
        mask: See `pictures.read_mask` and `pictures.hole_of_values`. None: the hole is where the
            image's opacity is below one half, if it has opacity.
        sketch: White lines, read as a mask is; or None.
        threshold: Of the mask, see `pictures.read_mask`.
        invert: Of the mask, see `pictures.read_mask`.
        resize: Stretch a mask of another size to the image's.
        resize_hint: Ends the error about a mask of another size: how the user asks for `resize`.
        max_pixels: Larger files are refused before they are decoded.

    Raises:
        UsageError: One of them cannot be read, or they differ in size.
    """
    if isinstance(image, Source):
        picture = read(image, max_pixels=max_pixels)
    else:
        picture = _picture(np.asarray(image))
    hole = lines = None
    if mask is not None:
        hole = _read_area(mask, max_pixels, threshold, invert)
        if resize and hole.shape[:2] != picture.pixels.shape[:2]:
            hole = resize_mask(hole, *picture.pixels.shape[:2])
        _check_size("mask", mask, hole, image, picture, resize_hint)
    elif picture.alpha is not None:
        picture, hole = split_hole(picture)
    if sketch is not None:
        lines = _read_area(sketch, max_pixels)
        _check_size("sketch", sketch, lines, image, picture)
    if hole is not None and picture.pixels.dtype.kind == "f":
        # A NaN outside the hole is refused as well.
        if not (np.abs(picture.pixels) <= 1).all(where=~hole):
            raise UsageError("Outside its hole, an image of floats must be in [-1, 1].")
    return Inputs(picture, hole, lines)


def _read_area(
    source: ImageInput, max_pixels: int, threshold: float = 0.5, invert: bool = False
) -> np.ndarray:
    """Reads a mask or a sketch, bool [H, W, 1]."""
    if isinstance(source, Source):
        return read_mask(source, threshold=threshold, invert=invert, max_pixels=max_pixels)
    area = hole_of_values(np.asarray(source), threshold=threshold)
    return ~area if invert else area


def _check_size(
    kind: str,
    source: ImageInput,
    area: np.ndarray,
    image: ImageInput,
    picture: Picture,
    hint: str = "",
) -> None:
    if area.shape[:2] != picture.pixels.shape[:2]:
        ours, whole = _name(source, f"The {kind}"), _name(image, "the image")
        raise UsageError(
            f"{ours} is {size(area)}, but {whole} is {size(picture.pixels)} (width x height); a "
            f"{kind} needs its image's size{hint}."
        )


def _name(source: ImageInput, default: str) -> str:
    return describe(source, default) if isinstance(source, Source) else default


def _picture(image: np.ndarray) -> Picture:
    """Parts an array into pixels, [H, W, 1 or 3], and opacity, [H, W, 1] or None."""
    pixels = image[..., np.newaxis] if image.ndim == 2 else image
    is_image = pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) and pixels.size
    if not is_image or not (image.dtype in (np.uint8, np.uint16) or image.dtype.kind == "f"):
        raise UsageError(
            "An image array must be [H, W], or [H, W, C] with 1 (grey), 3 (RGB) or 4 (RGB and "
            "opacity) channels, of uint8, uint16 or floats in [-1, 1], not "
            f"{image.dtype} {image.shape}."
        )
    return Picture(pixels[..., :3], pixels[..., 3:]) if pixels.shape[2] == 4 else Picture(pixels)
