"""Reads an image with its mask and sketch, files or arrays, and checks that they fit."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np
from PIL import Image

from deepfill_jax.errors import UsageError
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

# For an image, a mask or a sketch: a file on disk or in memory, a PIL picture or an array. For an
# image also what `pictures.read` returned.
ImageInput = Union[Source, Picture, np.ndarray, "jax.Array"]  # noqa: UP007, as a string has no `|`.


class Inputs(NamedTuple):
    """One image to inpaint, as arrays.

    Attributes:
        picture: The image; of an array of floats, its pixels are floats. Opaque, with
            `Picture.kept_share`, where its transparency was the hole.
        hole: bool [H, W, 1]; None if neither a mask nor transparency says where it is.
        sketch: bool [H, W, 1], true on lines, or None.
        warnings: Sentences on what may have been understood wrongly.
    """

    picture: Picture
    hole: np.ndarray | None
    sketch: np.ndarray | None = None
    warnings: tuple[str, ...] = ()


def read_inputs(
    image: ImageInput,
    mask: ImageInput | None = None,
    sketch: ImageInput | None = None,
    options: MaskOptions = CHECKED,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Inputs:
    """Reads an image, its mask and its sketch, and checks that they have one size.

    Args:
        image: A file or PIL picture, see `pictures.read`; or an array, see `Inpainter.__call__`. A
            PIL picture with a mask or sketch that is an array is not turned upright, as the array
            was probably made from its pixels.
        mask: See `pictures.read_mask` and `pictures.hole_of_values`. None: the hole is where the
            image is not fully opaque, if it has opacity; see `pictures.split_hole`.
        sketch: White lines, read as a mask is; or None.
        options: How the mask is read, checked and fitted to the image.
        max_pixels: Larger files are refused before they are decoded.

    Raises:
        UsageError: One of them cannot be read, they differ in size, or a check fails.
    """
    if isinstance(image, Source):
        beside_array = any(x is not None and not isinstance(x, Source) for x in (mask, sketch))
        as_stored = isinstance(image, Image.Image) and beside_array
        picture = read(image, max_pixels=max_pixels, as_stored=as_stored)
    else:
        picture = image if isinstance(image, Picture) else _picture(np.asarray(image))
    fit = functools.partial(_fit, image=image, picture=picture, max_pixels=max_pixels)
    hole, lines, warnings = None, None, []
    if mask is not None:
        hole = fit("mask", mask, options, warnings)
        check_hole(hole, options, name=_name(mask, "The mask"))
    elif picture.alpha is not None:
        picture, hole = split_hole(picture)
    if sketch is not None:
        lined = MaskOptions(orientation=options.orientation, check=False)
        lines = fit("sketch", sketch, lined, warnings)
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
    """Reads a mask or a sketch, bool [H, W, 1], and turns and stretches it to the image."""
    name, image_name = _name(source, f"The {kind}"), _name(image, "the image")
    if isinstance(source, Source):
        read_area = decode(source, max_pixels)
        area, own = hole_of_picture(read_area, options, name=name), read_area.orientation
    else:
        area, own = hole_of_values(np.asarray(source), options, name=name), 1
    area, is_guess = orient(area, own, picture, options.orientation)
    if is_guess:
        warnings.append(
            f"{image_name} is turned by its EXIF orientation, and nothing says whether {name} was "
            "drawn on the upright image, as was assumed, or on the stored pixels; choose upright "
            f"or stored with {options.say_orientation}."
        )
    height, width = picture.pixels.shape[:2]
    if area.shape[:2] == (height, width):
        return area
    sizes = f"{name} is {size(area)}, but {image_name} is {size(picture.pixels)} (width x height)"
    if is_transposed(area, picture):
        raise UsageError(f"{sizes}; it lies on its side, so turn it by 90 degrees.")
    if options.resize:
        return resize_mask(area, height, width)
    raise UsageError(f"{sizes}; a {kind} needs its image's size{options.say_resize}.")


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


def for_each(given: Any, count: int) -> Sequence[Any]:
    """Returns masks or sketches as a sequence: one for all is repeated."""
    if isinstance(given, list | tuple):
        return given
    if hasattr(given, "ndim"):  # An array of NumPy or JAX, or one like them.
        # [B, H, W] or [B, H, W, C]; but [H, W, C] is one for all.
        is_one = given.ndim == 2 or (
            given.ndim == 3 and given.shape[2] in (1, 3, 4) and given.shape[0] != count
        )
        if not is_one:
            return given
    return [given] * count
