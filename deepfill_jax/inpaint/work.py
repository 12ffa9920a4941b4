"""The steps from the inputs of one image to its completed image."""

import collections
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import mask_edges, value_range
from deepfill_jax.inpaint.canvas import Canvas, blend
from deepfill_jax.inpaint.inputs import ImageInput, read_inputs
from deepfill_jax.inpaint.network import compiled_side
from deepfill_jax.inpaint.options import Settings
from deepfill_jax.inpaint.windows import Plan, Strategy, Window, plan_windows
from deepfill_jax.models import Prediction
from deepfill_jax.pictures import Picture, Source, check_hole

BATCH_PIXELS = 8 * 256**2  # Pixels per batch of windows; a larger window is a batch alone.


class Completed(NamedTuple):
    """A completed image."""

    pixels: np.ndarray  # As returned by `Inpainter.__call__`.
    strategy: Strategy  # The strategy used; never "auto".
    scale: float  # Smallest scale of a window, in (0, 1]; 1.0 if none was scaled down.
    megapixels: float  # Processed in all windows, as scaled down; see `windows.Plan`.


class Work(NamedTuple):
    """An image with its hole, its dilated hole, and the canvas on which this is filled."""

    picture: Picture
    hole: np.ndarray
    dilated: np.ndarray
    plan: Plan
    canvas: Canvas
    is_flat: bool  # Whether the input was an array [H, W].
    has_alpha: bool  # Whether the result has an alpha channel.
    settings: Settings
    warnings: tuple[str, ...]  # See `Inputs`.

    def completed(self) -> Completed:
        """Returns the result; all windows of the canvas must be filled."""
        pixels, original, settings = self.canvas.pixels, self.picture.pixels, self.settings
        share = self._share_of_fill()
        if share is not None:
            unit = value_range.to_unit(original, self.dilated, settings.value_range)
            pixels = blend(unit, pixels, share)
        pixels = value_range.from_unit(pixels, original, self.dilated, settings.value_range)
        if self.has_alpha:
            pixels = np.concatenate([pixels, self.picture.alpha], axis=2)
        if self.is_flat:
            pixels = pixels[..., 0]
        return Completed(pixels, self.plan.strategy, self.plan.scale, self.plan.megapixels)

    def _share_of_fill(self) -> np.ndarray | None:
        """Returns the weight of the completion, float32 [H, W, 1]; None: 1 in the whole hole."""
        if self.settings.feather:
            return mask_edges.feather(self.hole, self.dilated, self.settings.feather)
        kept = self.picture.kept_share
        if kept is None or self.dilated is not self.hole:  # A dilated hole is not blended.
            return None
        # Opaque pixels in the hole were masked by other means than alpha.
        return np.where(self.hole & (kept == 1), 1, 1 - kept).astype(np.float32)


def begin(
    image: ImageInput,
    mask: ImageInput | None,
    sketch: ImageInput | None,
    settings: Settings,
    *,
    working_size: int,
    guided: bool,
    replace_detail: bool,
) -> Work:
    """Reads an image, dilates its hole, and finds the windows that fill it.

    Args:
        image: See `Inpainter.__call__`.
        mask: See `Inpainter.__call__`. None: the transparent pixels of the image are the hole.
        sketch: See `Inpainter.__call__`. None means no lines.
        settings: The options; this function resolves the strategy "auto".
        working_size: See `windows.plan_windows`.
        guided: Whether the network accepts a sketch.
        replace_detail: Whether the network's own detail is replaced, see `Canvas`.

    Raises:
        UsageError: An input cannot be read, sizes differ, no hole is given, or its dilation is the
            whole image.
    """
    options = settings.mask_options()
    picture, hole, lines, warnings = read_inputs(image, mask, sketch, options)
    if hole is None:
        raise UsageError("The image has no alpha channel that marks a hole; pass a mask.")
    if mask is None:
        check_hole(hole, options, name="The transparency of the image")
    if isinstance(image, Source):  # The result of a file is RGB.
        rgb = picture.pixels.repeat(3 // picture.pixels.shape[2], axis=2)
        picture = replace(picture, pixels=rgb)
    is_array = not isinstance(image, Source | Picture)
    has_alpha = is_array and mask is not None and picture.alpha is not None
    if guided and lines is None:
        lines = np.zeros_like(hole)
    unit = value_range.to_unit(picture.pixels, hole, settings.value_range)
    if settings.value_range is None and value_range.is_probably_0_to_1(unit, hole):
        warnings = (*warnings, value_range.WARNING)
    dilated = mask_edges.dilate(hole, settings.dilate)
    if settings.check_mask and dilated.all() and not hole.all():
        raise UsageError(
            f"Dilation by {settings.dilate} pixels makes the whole image the hole, which leaves "
            "nothing to fill it from; dilate by fewer pixels."
        )
    plan = plan_windows(dilated, settings.strategy, working_size, settings.budget)
    unknown = None if picture.alpha is None else (picture.alpha == 0) & ~dilated
    canvas = Canvas(
        unit,
        plan.levels,
        plan.stages,
        lines,
        unknown,
        detail=settings.detail,
        replace_detail=replace_detail and settings.detail,
    )
    is_flat = not isinstance(image, Source | Picture) and np.ndim(image) == 2
    return Work(picture, hole, dilated, plan, canvas, is_flat, has_alpha, settings, warnings)


def batch_shapes(
    height: int, width: int, strategy: Strategy, working_size: int
) -> list[tuple[int, int, int]]:
    """Returns the shapes (batch, height, width) at which the network fills images of a size.

    Of an image that is filled in several windows, these are the numbers of windows at full scale
    that fit into a batch. Windows that are scaled down because of a thick hole may have other
    shapes if a side of the image is shorter than they are.

    Raises:
        UsageError: A side is not positive.
    """
    if min(height, width) < 1:
        raise UsageError(f"An image has at least one pixel, not {width}x{height}.")
    hole = np.zeros((height, width, 1), bool)
    hole[height // 2, width // 2] = True
    plan = plan_windows(hole, strategy, working_size)
    ((window,),) = plan.stages
    shape = compiled_side(window.height), compiled_side(window.width)
    several = window.view[2:] != (height, width)
    most = _largest_batch(*shape) if several else 1
    return [(1 << i, *shape) for i in range((most - 1).bit_length() + 1)]


def _largest_batch(height: int, width: int) -> int:
    return max(BATCH_PIXELS // (height * width), 1)


def fill(canvases: Sequence[Canvas], run: Callable[..., Prediction]) -> None:
    """Fills all windows of canvases, stage by stage, in batches of windows of one size.

    Args:
        canvases: The canvases of the images, see `begin`.
        run: The network, see `Network.__call__`.
    """
    while ready := [(canvas, w) for canvas in canvases for w in canvas.pop_stage()]:
        by_size = collections.defaultdict(list)
        for canvas, window in ready:
            sides = compiled_side(window.height), compiled_side(window.width)
            by_size[(*sides, window.height, window.width)].append((canvas, window))
        for (height, width, *_), group in by_size.items():
            most = _largest_batch(height, width)
            for start in range(0, len(group), most):
                _fill_batch(group[start : start + most], height, width, run)


def _fill_batch(
    batch: Sequence[tuple[Canvas, Window]], height: int, width: int, run: Callable[..., Prediction]
) -> None:
    seen = [canvas.read_window(window) for canvas, window in batch]
    # Each batch size is compiled, so batches are padded to 1, 2, 4, ... with the last image.
    seen += seen[-1:] * ((1 << (len(seen) - 1).bit_length()) - len(seen))
    inputs = (np.stack(x) for x in zip(*seen, strict=True))
    completed = np.asarray(run(height, width, *inputs).completed)
    for (canvas, window), filled in zip(batch, completed, strict=False):
        canvas.paste(window, filled[: window.height, : window.width])
