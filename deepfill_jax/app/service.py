"""Fills pictures with the models that are served; no web in it."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from deepfill_jax import pictures, weights
from deepfill_jax.app.queue import WAITING, CancelledError, Queue
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import mask_edges
from deepfill_jax.inpaint.canvas import extend
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.pictures import Picture


class Sides(NamedTuple):
    """Pixels by which a picture is extended."""

    top: int = 0
    right: int = 0
    bottom: int = 0
    left: int = 0


@dataclass(frozen=True)
class Options:
    """How a picture is filled; see `Inpainter`."""

    model: str
    strategy: str = "auto"
    dilate: int = 0
    feather: int = 0
    extension: Sides = Sides()


class Filled(NamedTuple):
    """A filled picture."""

    before: Picture  # Extended, where that was asked for.
    pixels: np.ndarray  # Of the shape and type of `before.pixels`, and like them outside the hole.
    strategy: str  # What "auto" stood for.
    seconds: float


class Service:
    """Fills pictures one after the other, each with all cores.

    Attributes:
        models: By name.
        queue: Where requests wait for their turn.
        max_pixels: Of a picture, before and after it is extended.
    """

    def __init__(
        self,
        models: Mapping[str, weights.Model],
        *,
        max_pixels: int = pictures.MAX_PIXELS,
        waiting: int = WAITING,
    ):
        """Takes models, and how many pictures may wait while one is filled."""
        self.models, self.max_pixels = dict(models), max_pixels
        self._inpainters = {name: _Stoppable(model) for name, model in models.items()}
        self.queue = Queue(waiting)

    def working_size(self, name: str) -> int:
        """Returns the side of the pictures that a model works best on."""
        return self._inpainters[name].working_size

    def guided(self, name: str) -> bool:
        """Whether a model takes sketches."""
        return self._inpainters[name].guided

    def license(self, name: str) -> str | None:
        """Returns the license of a model's weights, if it is known."""
        return self.models[name].metadata.get("license")

    def fill(
        self,
        picture: Picture,
        hole: np.ndarray,
        sketch: np.ndarray | None,
        options: Options,
        stop: threading.Event,
    ) -> Filled:
        """Fills a picture's hole and what it is extended by; in a turn.

        Args:
            picture: The picture.
            hole: bool [H, W, 1].
            sketch: bool [H, W, 1], of guided models alone; there are no lines in what is new.
            options: How to fill it.
            stop: Set when nobody waits any more.

        Raises:
            UsageError: There is nothing to fill, an option cannot be used, or the model takes no
                sketch.
            CancelledError: `stop` was set, and work was left.
        """
        began = time.monotonic()
        if any(options.extension):
            picture, hole = self._extended(picture, hole, options.extension)
            sketch = None if sketch is None else extend(sketch, *options.extension)[0]
        if not hole.any():
            raise UsageError(
                "There is nothing to fill: the mask is empty. Paint or upload one, or extend the "
                "picture."
            )
        inpainter = self._inpainters[options.model]
        strategy = inpainter.choose(mask_edges.dilate(hole, options.dilate), options.strategy)
        inpainter.stop = stop
        pixels = inpainter(
            picture.pixels,
            hole,
            sketch=sketch,
            strategy=strategy,
            dilate=options.dilate,
            feather=options.feather,
        )
        return Filled(picture, pixels, strategy, time.monotonic() - began)

    def _extended(
        self, picture: Picture, hole: np.ndarray, sides: Sides
    ) -> tuple[Picture, np.ndarray]:
        height, width = picture.pixels.shape[:2]
        height, width = height + sides.top + sides.bottom, width + sides.left + sides.right
        if height * width > self.max_pixels:
            raise UsageError(
                f"The extended picture would have {width}x{height} pixels (width x height), more "
                f"than the limit of {self.max_pixels:,}; extend it by less."
            )
        pixels, new = extend(picture.pixels, *sides)
        alpha = picture.alpha
        if alpha is not None:
            opaque = np.iinfo(alpha.dtype).max
            alpha = np.where(new, opaque, extend(alpha, *sides)[0]).astype(alpha.dtype)
        return replace(picture, pixels=pixels, alpha=alpha), extend(hole, *sides)[0] | new


class _Stoppable(Inpainter):
    """An inpainter that looks, before each of its windows, whether it is to stop."""

    stop = threading.Event()

    def _run(self, *arguments):
        if self.stop.is_set():
            raise CancelledError
        return super()._run(*arguments)
