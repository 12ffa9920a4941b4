"""What is asked for, and what is returned; no web in it."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np

from deepfill_jax import pictures, trained, weights
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import mask_edges
from deepfill_jax.inpaint.canvas import extend
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.pictures import WRITABLE, Encoded, Picture, size

FORMATS = ("png", "keep")
_NAME = 80  # Characters of a picture's name that are kept.
WAITING = 8  # Pictures that may wait while one is filled.

Made = TypeVar("Made")


class BusyError(Exception):
    """So many wait already that one more would wait too long."""

    def __init__(self):
        super().__init__("Too many pictures are waiting; try again in a while.")


class GoneError(Exception):
    """Who asked has gone away, or asked for something else."""

    def __init__(self):
        super().__init__("The fill was stopped.")


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


def available(named: Sequence[str]) -> dict[str, weights.Model]:
    """Returns models by the names that people choose them by.

    Args:
        named: Names or files, see `weights.load`; if there are none, all that come with the
            package.

    Raises:
        UsageError: There is none, two have the same name, or one cannot be loaded.
    """
    named = named or trained.names()
    if not named:
        raise UsageError("There is no model to fill with; name one with --model FILE.")
    models = {}
    for path in named:
        name = Path(path).name.removesuffix(trained.SUFFIX)
        if name in models:
            raise UsageError(f"Two models are called {name}; give one of the files another name.")
        models[name] = weights.load(path)
    return models


def read(
    image: Encoded,
    mask: Encoded | None,
    sketch: Encoded | None = None,
    *,
    max_pixels: int = pictures.MAX_PIXELS,
) -> tuple[Picture, np.ndarray, np.ndarray | None]:
    """Reads a picture, its hole, bool [H, W, 1], and its sketch, if it has one, the same.

    Args:
        image: Without a mask, the hole is what is transparent in it, if it has transparency.
        mask: See `pictures.read_mask`.
        sketch: Lines, read as masks are.
        max_pixels: What is larger is refused.

    Raises:
        UsageError: One of them cannot be used, or they do not fit.
    """
    picture = pictures.read(image, max_pixels=max_pixels)

    def fitting(kind: str, source: Encoded) -> np.ndarray:
        area = pictures.read_mask(source, max_pixels=max_pixels)
        if area.shape[:2] != picture.pixels.shape[:2]:
            raise UsageError(
                f"{source.name} is {size(area)}, but {image.name} is {size(picture.pixels)} (width "
                f"x height); a {kind} needs its picture's size."
            )
        return area

    if mask is not None:
        hole = fitting("mask", mask)
    elif picture.alpha is not None:
        picture, hole = pictures.split_hole(picture)
    else:
        hole = np.zeros((*picture.pixels.shape[:2], 1), bool)
    return picture, hole, None if sketch is None else fitting("sketch", sketch)


def result_name(name: str, format: str) -> str:
    """Returns what the result of a picture of this name is called, in one of `FORMATS`."""
    path = Path(name)
    return f"{path.stem}_completed{path.suffix if format == 'keep' else '.png'}"


def can_keep(name: str) -> bool:
    """Whether a picture of this name can be written in its own format, and that is not PNG."""
    return WRITABLE.get(Path(name).suffix.lower(), "PNG") != "PNG"


def plain_name(filename: str | None) -> str:
    """Returns a client's name for a file as it may stand in messages and name the result."""
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    return "".join(c for c in name if c.isprintable())[-_NAME:] or "picture"


class Service:
    """Fills pictures one after the other, each with all cores.

    Attributes:
        models: By name.
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
        self._places = threading.BoundedSemaphore(waiting + 1)
        self._turn = asyncio.Lock()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place in the queue, to be held until a result is there.

        Raises:
            BusyError: All are taken.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            yield
        finally:
            self._places.release()

    def working_size(self, name: str) -> int:
        """Returns the side of the pictures that a model works best on."""
        return self._inpainters[name].working_size

    def guided(self, name: str) -> bool:
        """Whether a model takes sketches."""
        return self._inpainters[name].guided

    def licence(self, name: str) -> str | None:
        """Returns the licence of a model's weights, if it is known."""
        return self.models[name].about.get("licence")

    async def turn(self, work: Callable[[threading.Event], Made]) -> Made:
        """Does work in a thread, when all that asked before is done; for who has a place.

        Args:
            work: Takes an event that is set when nobody waits any more: as this is cancelled. The
                turn ends as `work` does, so that two never run beside each other.
        """
        async with self._turn:
            stop = threading.Event()
            working = asyncio.ensure_future(asyncio.to_thread(work, stop))
            try:
                return await asyncio.shield(working)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait([working])
                working.exception()  # Looked at, so that nobody warns of it.
                raise

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
            GoneError: `stop` was set, and work was left.
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
            raise GoneError
        return super()._run(*arguments)
