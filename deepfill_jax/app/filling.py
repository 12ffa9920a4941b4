"""Fills the holes of images with the served models; it runs in the worker process."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from deepfill_jax import pictures
from deepfill_jax.app.queue import CancelledError
from deepfill_jax.app.shared_flags import Flags
from deepfill_jax.app.work_limits import Limits
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.canvas import extend
from deepfill_jax.inpaint.classical import Method
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.inpaint.options import check_budget, check_edges
from deepfill_jax.inpaint.windows import BUDGET, Strategy
from deepfill_jax.models import Prediction
from deepfill_jax.pictures import MaskOptions, Picture, check_hole


class Sides(NamedTuple):
    """Pixels by which an image is extended on each side."""

    top: int = 0
    right: int = 0
    bottom: int = 0
    left: int = 0


@dataclass(frozen=True)
class Options:
    """Inpainting options of a request, see `Inpainter`."""

    model: str
    strategy: Strategy = "auto"
    dilate: int = 0
    feather: int = 0
    extension: Sides = Sides()
    mask: MaskOptions = MaskOptions()
    detail: bool = True
    seamless: bool = True
    budget: float = BUDGET

    def __post_init__(self) -> None:
        check_edges(self.dilate, self.feather)
        check_budget(self.budget, self.strategy)


class Summary(NamedTuple):
    """How an image was inpainted."""

    size: str  # Such as "640x480".
    strategy: Strategy  # The strategy used, which is never "auto".
    scale: float  # See `Completed`.
    megapixels: float
    seconds: float


class Filled(NamedTuple):
    """A completed image."""

    before: Picture  # The input image, extended if requested.
    hole: np.ndarray  # Its hole before dilation, bool [H, W, 1].
    pixels: np.ndarray  # Shape and type of `before.pixels`, and equal to them outside the hole.
    summary: Summary


class Filler:
    """Fills the holes of images, one image at a time."""

    def __init__(self, models: Mapping[str, Method], limits: Limits, flags: Flags):
        """Takes the models by name, the limits, and the flags that stop the work."""
        self.limits = limits
        self._inpainters = {name: _Stoppable(model, flags) for name, model in models.items()}

    def guided(self, model: str) -> bool:
        """Whether a model takes sketches."""
        return self._inpainters[model].guided

    def fill(
        self, picture: Picture, hole: np.ndarray, sketch: np.ndarray | None, options: Options
    ) -> Filled:
        """Fills the hole of an image and the area by which it is extended.

        Args:
            picture: The image.
            hole: The mask, bool [H, W, 1].
            sketch: The sketch, bool [H, W, 1], for guided models only. It is empty in the area by
                which the image is extended.
            options: The inpainting options.

        Raises:
            UsageError: There is nothing to fill, an option is invalid, the model does not take a
                sketch, or the image is too large.
            CancelledError: The stop flag was set before the work was done.
        """
        began = time.monotonic()
        if any(options.extension):
            picture, hole = self._extended(picture, hole, options.extension)
            sketch = None if sketch is None else extend(sketch, *options.extension)[0]
        if not hole.any():
            raise UsageError(
                "There is nothing to fill: the mask is empty. Paint or upload a mask, or extend "
                "the image."
            )
        check_hole(hole, options.mask, name="The mask")
        self._check_strategy(picture, options.strategy)
        pixels, strategy, scale, megapixels = self._inpainters[options.model].complete(
            picture,
            hole,
            sketch,
            strategy=options.strategy,
            budget=options.budget,
            dilate=options.dilate,
            feather=options.feather,
            detail=options.detail,
            seamless=options.seamless,
            mask_orientation="upright",  # The mask was turned as the image was.
            check_mask=options.mask.check,
        )
        seconds = time.monotonic() - began
        summary = Summary(pictures.size(pixels), strategy, scale, megapixels, seconds)
        return Filled(picture, hole, pixels, summary)

    def _check_strategy(self, picture: Picture, strategy: Strategy) -> None:
        height, width = picture.pixels.shape[:2]
        limit = self.limits.max_original_pixels
        if strategy == "original" and height * width > limit:
            raise UsageError(
                f"The image has {width}x{height} pixels (width x height), more than the limit of "
                f"{limit:,} for the strategy original, whose time grows with the square of the "
                "number of pixels; choose auto, resize or crop, or start the server with a larger "
                "--max-original-megapixels."
            )

    def _extended(
        self, picture: Picture, hole: np.ndarray, sides: Sides
    ) -> tuple[Picture, np.ndarray]:
        height, width = picture.pixels.shape[:2]
        height, width = height + sides.top + sides.bottom, width + sides.left + sides.right
        if height * width > self.limits.max_pixels:
            raise UsageError(
                f"The extended image would have {width}x{height} pixels (width x height), more "
                f"than the limit of {self.limits.max_pixels:,}; extend it by less."
            )
        pixels, new = extend(picture.pixels, *sides)
        alpha = picture.alpha
        if alpha is not None:
            opaque = pictures.opaque(alpha)
            alpha = np.where(new, opaque, extend(alpha, *sides)[0]).astype(alpha.dtype)
        kept = None if picture.kept_share is None else extend(picture.kept_share, *sides)[0]
        extended = replace(picture, pixels=pixels, alpha=alpha, kept_share=kept)
        return extended, extend(hole, *sides)[0] | new


class _Stoppable(Inpainter):
    """An inpainter that checks the stop flag before each window."""

    def __init__(self, model: Method, flags: Flags):
        super().__init__(model)
        self._flags = flags

    def _run(
        self, height: int, width: int, *inputs: np.ndarray, seamless: bool = False
    ) -> Prediction[Any]:
        if self._flags.stop:
            raise CancelledError
        size = len(inputs[0]), height, width
        if not self._network.is_compiled(*size, seamless=seamless):
            self._flags.compiling[:] = list(size)
        try:
            return super()._run(height, width, *inputs, seamless=seamless)
        finally:
            self._flags.compiling[:] = [0, 0, 0]
