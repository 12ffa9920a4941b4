"""The inpainting service behind the web UI and the HTTP API; it does not depend on either."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from deepfill_jax import pictures, weights
from deepfill_jax.app.queue import MAX_WAITING, CancelledError, Queue
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.canvas import extend
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.inpaint.options import check_edges
from deepfill_jax.inpaint.windows import Strategy
from deepfill_jax.pictures import MaskOptions, Picture


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

    def __post_init__(self) -> None:
        check_edges(self.dilate, self.feather)


class Filled(NamedTuple):
    """A completed image."""

    before: Picture  # The input image, extended if requested.
    hole: np.ndarray  # Its hole before dilation, bool [H, W, 1].
    pixels: np.ndarray  # Shape and type of `before.pixels`, and equal to them outside the hole.
    strategy: Strategy  # The strategy used, which is never "auto".
    scale: float  # See `Completed`.
    seconds: float


class Service:
    """Inpaints images with the served models, one at a time, each on all cores.

    Attributes:
        models: The models, by name.
        queue: The queue of requests.
        max_pixels: Maximum number of pixels of an image, before and after it is extended.
    """

    def __init__(
        self,
        models: Mapping[str, weights.Model],
        *,
        max_pixels: int = pictures.MAX_PIXELS,
        waiting: int = MAX_WAITING,
    ):
        """Takes the models and the limits; `waiting` is the maximum number of waiting requests."""
        self.models, self.max_pixels = dict(models), max_pixels
        self._inpainters = {name: _Stoppable(model) for name, model in models.items()}
        self.queue = Queue(waiting)

    def working_size(self, name: str) -> int:
        """Returns the image side, in pixels, at which a model works best."""
        return self._inpainters[name].working_size

    def guided(self, name: str) -> bool:
        """Whether a model takes sketches."""
        return self._inpainters[name].guided

    def license(self, name: str) -> str | None:
        """Returns the license of a model's weights, or None if it is not known."""
        return self.models[name].metadata.get("license")

    def purpose(self, name: str) -> str | None:
        """Returns what a model is for, or None if it is not known."""
        return self.models[name].metadata.get("purpose")

    def is_compiling(self) -> bool:
        """Whether the network is being compiled and run for the first time at an image's size."""
        return any(inpainter.is_compiling for inpainter in self._inpainters.values())

    def fill(
        self,
        picture: Picture,
        hole: np.ndarray,
        sketch: np.ndarray | None,
        options: Options,
        stop: threading.Event,
    ) -> Filled:
        """Fills the hole of an image and the area by which it is extended.

        Only one call may run at a time, see `Queue.exclusive`.

        Args:
            picture: The image.
            hole: The mask, bool [H, W, 1].
            sketch: The sketch, bool [H, W, 1], for guided models only. It is empty in the area by
                which the image is extended.
            options: The inpainting options.
            stop: Is set when the client no longer waits.

        Raises:
            UsageError: There is nothing to fill, an option is invalid, or the model does not take a
                sketch.
            CancelledError: `stop` was set before the work was done.
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
        inpainter = self._inpainters[options.model]
        inpainter.stop = stop
        completed = inpainter.complete(
            picture,
            hole,
            sketch,
            strategy=options.strategy,
            dilate=options.dilate,
            feather=options.feather,
            mask_orientation="upright",  # The mask was turned as the image was.
            check_mask=options.mask.check,
        )
        return Filled(picture, hole, *completed, time.monotonic() - began)

    def _extended(
        self, picture: Picture, hole: np.ndarray, sides: Sides
    ) -> tuple[Picture, np.ndarray]:
        height, width = picture.pixels.shape[:2]
        height, width = height + sides.top + sides.bottom, width + sides.left + sides.right
        if height * width > self.max_pixels:
            raise UsageError(
                f"The extended image would have {width}x{height} pixels (width x height), more "
                f"than the limit of {self.max_pixels:,}; extend it by less."
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
    """An inpainter that checks a stop event before each window."""

    stop = threading.Event()
    is_compiling = False

    def _run(self, height, width, image, *areas):
        if self.stop.is_set():
            raise CancelledError
        self.is_compiling = not self._network.is_compiled(len(image), height, width)
        try:
            return super()._run(height, width, image, *areas)
        finally:
            self.is_compiling = False
