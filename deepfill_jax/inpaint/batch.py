"""Runs the jobs of a plan: reads, completes and writes many images.

An unusable file does not stop the others: a `Failure` with the reason replaces its job.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from deepfill_jax import pictures
from deepfill_jax.errors import UsageError, printable
from deepfill_jax.inpaint.inputs import Inputs, read_inputs
from deepfill_jax.inpaint.plan import Failure, Item, Job
from deepfill_jax.pictures import MaskOptions, Picture, check_hole, size
from deepfill_jax.pictures.mask_options import CHECKED

READ_AHEAD = 4  # Images read or being read, including the one being completed.
WRITE_BEHIND = 4  # Images being written.
IN_MEMORY = READ_AHEAD + WRITE_BEHIND - 1  # The image being completed has no writer yet.

Made = TypeVar("Made")
# Maps image, mask and sketch (or None) to the fields of `work.Completed`.
Fill = Callable[[Picture, np.ndarray, np.ndarray | None], tuple[np.ndarray, str, float, float]]


class Done(NamedTuple):
    """An image that was completed and written."""

    job: Job
    size: str  # Width x height.
    hole: float  # Share of the image.
    strategy: str
    scale: float  # See `work.Completed`.
    megapixels: float
    seconds: float  # Time in `fill`; reading and writing run concurrently.
    warnings: tuple[str, ...] = ()  # See `Inputs`.
    left_out: Sequence[str] = ()  # Metadata that the result does not contain.

    def __str__(self) -> str:
        image, _, result, _ = self.job
        line = (
            f"{image} -> {result}: {self.size}, {100 * self.hole:.3g} % hole, {self.strategy}, "
            f"scale {self.scale:.3g}, {self.megapixels:.3g} MP processed, {self.seconds:.1f} s"
        )
        if self.left_out:
            line += f"; left out: {', '.join(self.left_out)}"
        warnings = (f"warning: {warning}" for warning in self.warnings)
        return "\n".join(map(printable, (line, *warnings)))


def load(
    job: Job, options: MaskOptions = CHECKED, *, max_pixels: int = pictures.MAX_PIXELS
) -> Inputs:
    """Reads the image, the mask and the sketch of a job, if it has a mask and a sketch.

    Args:
        job: Without a mask, the pixels that are not fully opaque are the hole; they become opaque.
        options: How the mask is read, checked and fitted to the image.
        max_pixels: Limit for the image, the mask and the sketch, see `pictures.read`.

    Raises:
        UsageError: A file cannot be used, or the format of the result cannot store the image.
    """
    inputs = read_inputs(job.image, job.mask, job.sketch, options, max_pixels=max_pixels)
    if inputs.hole is None:
        raise UsageError(f"{job.image} has no transparency that marks a hole; pass --masks.")
    if job.mask is None:
        check_hole(inputs.hole, options, name=f"The transparency of {job.image}")
    pictures.check_writable(job.result, inputs.picture)
    return inputs


def complete(
    planned: Iterable[Job | Failure],
    *,
    load: Callable[[Job], Inputs],
    fill: Fill | None,
    write: Callable[[Path, np.ndarray, Picture], None] = pictures.write,
    report: Callable[[Done | Failure], None],
) -> list[Done | Failure]:
    """Runs jobs: threads read and write during `fill`; at most `IN_MEMORY` images are held.

    Args:
        planned: The jobs; failures are passed through.
        load: Reads the image, mask and sketch of a job. It runs in threads.
        fill: Returns the completed pixels and the strategy for these arrays. It runs in the calling
            thread, on one image at a time. None if there are no jobs.
        write: Writes a result atomically. It runs in threads.
        report: Is called with the outcome of each job as soon as the job ends, which may be out of
            order. It runs in threads, one call at a time.

    Returns:
        The outcome of each job, in the order of `planned`. Errors of inputs, disk, memory or device
        fail one job. Programming errors and Ctrl-C end the run, after all completed images have
        been written.
    """
    reporting = threading.Lock()

    @_stage
    def loaded(job: Job) -> tuple[Job, Inputs]:
        return job, load(job)

    @_stage
    def filled(job: Job, inputs: Inputs) -> tuple[Job, Picture, np.ndarray, Done]:
        picture, hole, sketch, warnings = inputs
        assert fill is not None and hole is not None  # `load` refuses an image without a hole.
        began = time.monotonic()
        pixels, strategy, scale, megapixels = fill(picture, hole, sketch)
        seconds = time.monotonic() - began
        share = float(hole.mean())
        done = Done(job, size(pixels), share, strategy, scale, megapixels, seconds, warnings)
        return job, picture, pixels, done

    @_stage
    def written(job: Job, picture: Picture, pixels: np.ndarray, done: Done) -> Done:
        write(job.result, pixels, picture)
        return done._replace(left_out=pictures.left_out(job.result, picture))

    def ended(item: tuple | Failure) -> Done | Failure:
        end = written(item)
        with reporting:
            report(end)
        return end

    items = (item if isinstance(item, Failure) else (item,) for item in planned)
    with ThreadPoolExecutor(READ_AHEAD) as readers, ThreadPoolExecutor(WRITE_BEHIND) as writers:
        pictures_in = _in_order(readers, loaded, items, READ_AHEAD)
        return list(_in_order(writers, ended, map(filled, pictures_in), WRITE_BEHIND))


def _stage(work: Callable[..., Any]) -> Callable[[tuple | Failure], Any]:
    """Wraps `work` on a tuple whose first item is a job, so that an error fails only that job."""

    def step(item: tuple | Failure) -> Any:
        if isinstance(item, Failure):
            return item
        try:
            return work(*item)
        # JAX raises a RuntimeError for an image that is too large for the device.
        except (UsageError, OSError, MemoryError, RuntimeError) as error:
            image, _, result, _ = item[0]
            reason = f"{error}".partition("\n")[0] or type(error).__name__
            named = reason if f"{image}" in reason else f"{image} -> {result}: {reason}"
            return Failure(named, isinstance(error, UsageError))

    return step


def _in_order(
    pool: Executor, work: Callable[[Item], Made], items: Iterable[Item], ahead: int
) -> Iterator[Made]:
    """Works like `pool.map`, but takes an item only while fewer than `ahead` are pending."""
    pending: deque[Future[Made]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) == ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
