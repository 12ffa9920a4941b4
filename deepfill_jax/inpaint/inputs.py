"""Reads an image with its mask and sketch from files or arrays, and checks their sizes."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import value_range
from deepfill_jax.inpaint.orientation import is_transposed, orient
from deepfill_jax.pictures import (
    MAX_PIXELS,
    MaskOptions,
    Picture,
    Source,
    check_hole,
    describe,
    hole_of_picture,
    hole_of_values,
    read,
    resize_mask,
    size,
    split_hole,
)
from deepfill_jax.pictures.decoding import decode
from deepfill_jax.pictures.mask_options import CHECKED

if TYPE_CHECKING:
    import jax

_MAX_LINES = 0.5  # A larger share of lines is probably the background of dark lines.

# An image, a mask or a sketch: a file on disk or in memory, a PIL image or an array. An image may
# also be a `Picture` that `pictures.read` returned.
ImageInput = Union[Source, Picture, np.ndarray, "jax.Array"]  # noqa: UP007, as a string has no `|`.


class Inputs(NamedTuple):
    """One image to inpaint, as arrays.

    Attributes:
        picture: The image. Its pixels are floats if the input was an array of floats. If its
            transparency is the hole, it is opaque and has `Picture.kept_share`.
        hole: bool [H, W, 1]; None if there is neither a mask nor transparency.
        sketch: bool [H, W, 1], true on lines, or None.
        warnings: Sentences about ambiguous inputs.
    """

    picture: Picture
    hole: np.ndarray | None
    sketch: np.ndarray | None = None
    warnings: tuple[str, ...] = ()


def check_batch(image: np.ndarray, mask: np.ndarray, sketch: np.ndarray) -> np.ndarray:
    """Checks the inputs of `Inpainter.predict`; returns the hole, bool [B, H, W, 1].

    Raises:
        UsageError: A shape, type or range is wrong.
    """
    fits = image.ndim == 4 and image.shape[3] == 3 and mask.shape == (*image.shape[:3], 1)
    fits &= sketch.shape == mask.shape
    if not fits or not image.size or not np.issubdtype(image.dtype, np.floating):
        raise UsageError(
            "predict needs a float image [B, H, W, 3] in [-1, 1] and a mask [B, H, W, 1], not "
            f"{image.dtype} {image.shape} and {mask.dtype} {mask.shape}; a sketch has the "
            "mask's shape."
        )
    hole = mask > 0.5
    if not (np.abs(image) <= 1).all(where=~hole):
        raise UsageError(
            "Outside the hole, predict needs pixels in [-1, 1]; map 0 to 255 to it with "
            "image / 127.5 - 1."
        )
    return hole


def read_inputs(
    image: ImageInput,
    mask: ImageInput | None = None,
    sketch: ImageInput | None = None,
    options: MaskOptions = CHECKED,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Inputs:
    """Reads an image, its mask and its sketch, and checks that they have the same size.

    Args:
        image: A file or PIL image, see `pictures.read`; or an array, see `Inpainter.__call__`. A
            PIL image with a mask or sketch that is an array is not turned upright, as the array
            was probably made from its pixels.
        mask: See `pictures.read_mask` and `pictures.hole_of_values`. None: the pixels
            that are not fully opaque are the hole, if there is alpha; see `pictures.split_hole`.
        sketch: White lines, read like a mask; or None.
        options: How the mask is read, checked and fitted to the image.
        max_pixels: Limit of width x height; larger files are rejected before decoding.

    Raises:
        UsageError: One of them cannot be read, they differ in size, or a check fails.
    """
    if isinstance(image, Source):
        beside_array = any(x is not None and not isinstance(x, Source) for x in (mask, sketch))
        as_stored = isinstance(image, Image.Image) and beside_array
        picture = read(image, max_pixels=max_pixels, as_stored=as_stored)
    else:
        picture = image if isinstance(image, Picture) else _picture(_array(image, "The image"))
    fit = functools.partial(_fit, image=image, picture=picture, max_pixels=max_pixels)
    hole, lines = None, None
    warnings: list[str] = []
    if mask is not None:
        hole = fit("mask", mask, options, warnings)
        check_hole(hole, options, name=_name(mask, "The mask"))
    elif picture.alpha is not None:
        picture, hole = split_hole(picture)
    if sketch is not None:
        lined = MaskOptions(orientation=options.orientation, check=False)
        lines = fit("sketch", sketch, lined, warnings)
        warnings += _doubts_of_sketch(lines, hole, sketch)
    if hole is not None and not isinstance(image, Picture):
        if doubt := value_range.dark_16_bits(picture.pixels, hole):
            warnings.append(f"{_name(image, 'The image')} {doubt}")
    return Inputs(picture, hole, lines, tuple(warnings))


def _fit(
    kind: str,
    source: ImageInput,
    options: MaskOptions,
    warnings: list[str],
    *,
    image: ImageInput,
    picture: Picture,
    max_pixels: int,
) -> np.ndarray:
    """Reads a mask or a sketch, bool [H, W, 1], and orients and scales it to the image."""
    name, image_name = _name(source, f"The {kind}"), _name(image, "the image")
    if isinstance(source, Source):
        read_area = decode(source, max_pixels)
        area, own = hole_of_picture(read_area, options, name=name), read_area.orientation
    else:
        area, own = hole_of_values(_array(source, name), options, name=name), 1
    area, is_guess = orient(area, own, picture, options.orientation)
    if is_guess:
        warnings.append(
            f"{image_name} is turned by its EXIF orientation, but it is unknown whether {name} was "
            "drawn on the upright image (assumed) or on the stored pixels; choose upright or "
            f"stored with {options.say_orientation}."
        )
    height, width = picture.pixels.shape[:2]
    if area.shape[:2] == (height, width):
        return area
    sizes = f"{name} is {size(area)}, but {image_name} is {size(picture.pixels)} (width x height)"
    if is_transposed(area, picture):
        raise UsageError(f"{sizes}; it lies on its side; rotate it by 90 degrees.")
    if options.resize:
        return resize_mask(area, height, width)
    raise UsageError(f"{sizes}; a {kind} must have the size of its image{options.say_resize}.")


def _doubts_of_sketch(lines: np.ndarray, hole: np.ndarray | None, sketch: ImageInput) -> list[str]:
    """Returns a warning if a sketch was probably not drawn white on black."""
    if isinstance(sketch, np.ndarray) and sketch.dtype.kind == "b":  # Not read from values.
        return []
    name, how = _name(sketch, "The sketch"), "draw white lines on black, or on transparency."
    if lines.mean() > _MAX_LINES:
        return [f"{name} marks {lines.mean():.0%} of the image as lines; {how}"]
    if hole is not None and not (lines & hole).any():
        return [f"{name} has no lines in the hole; {how}"]
    return []


def _name(source: ImageInput, default: str) -> str:
    return describe(source, default) if isinstance(source, Source) else default


def _array(given: Any, name: str) -> np.ndarray:
    if np.ma.is_masked(given):  # NumPy would use the masked values like the others.
        raise UsageError(f"{name} has masked values; replace them with its method filled().")
    return np.asarray(given)


def _picture(image: np.ndarray) -> Picture:
    """Splits an array into pixels, [H, W, 1 or 3], and alpha, [H, W, 1] or None."""
    pixels = image[..., np.newaxis] if image.ndim == 2 else image
    is_image = pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) and pixels.size
    if not is_image or not (image.dtype in (np.uint8, np.uint16) or image.dtype.kind == "f"):
        raise UsageError(
            "An image array must be [H, W], or [H, W, C] with 1 (grey), 3 (RGB) or 4 (RGBA) "
            "channels, of uint8, uint16 or floats in [-1, 1], not "
            f"{image.dtype} {image.shape}."
        )
    return Picture(pixels[..., :3], pixels[..., 3:]) if pixels.shape[2] == 4 else Picture(pixels)


def for_each(given: Any, count: int) -> Sequence[Any]:
    """Returns masks or sketches as a sequence; a single one is repeated for all images."""
    if isinstance(given, list | tuple):
        return given
    if hasattr(given, "ndim"):  # A NumPy or JAX array, or a similar type.
        # [B, H, W] or [B, H, W, C] has one per image; [H, W, C] is shared by all.
        is_one = given.ndim == 2 or (
            given.ndim == 3 and given.shape[2] in (1, 3, 4) and given.shape[0] != count
        )
        if not is_one:
            return given
    return [given] * count
