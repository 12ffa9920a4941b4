"""Does the jobs of a plan: reads, fills and writes many pictures.

A file that cannot be used stops no other: a `Failure`, with the reason, takes its job's place.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from deepfill_jax import pictures
from deepfill_jax.errors import UsageError, printable
from deepfill_jax.inpaint.inputs import Inputs, read_inputs
from deepfill_jax.inpaint.plan import Failure, Item, Job
from deepfill_jax.pictures import MaskOptions, Picture, check_hole, size
from deepfill_jax.pictures.mask_options import CHECKED

READ_AHEAD = 4  # Pictures that are read or being read, the one being filled among them.
WRITE_BEHIND = 4  # Pictures that are being written.
IN_MEMORY = READ_AHEAD + WRITE_BEHIND - 1  # While one is filled, its place with a writer is free.

Made = TypeVar("Made")
# Completed pixels, and by what strategy, of image, mask and sketch, which may be None.
Fill = Callable[[Picture, np.ndarray, np.ndarray | None], tuple[np.ndarray, str]]


class Done(NamedTuple):
    """A picture that is completed and written."""

    job: Job
    size: str  # Width x height.
    hole: float  # Share of the image.
    strategy: str
    seconds: float  # Of filling; reading and writing go on beside it.
    warnings: tuple[str, ...] = ()  # See `Inputs`.
    left_out: Sequence[str] = ()  # Metadata that the result does not have.

    def __str__(self) -> str:
        image, _, result, _ = self.job
        share = f"{100 * self.hole:.3g} % hole"
        line = f"{image} -> {result}: {self.size}, {share}, {self.strategy}, {self.seconds:.1f} s"
        if self.left_out:
            line += f"; left out: {', '.join(self.left_out)}"
        warnings = (f"warning: {warning}" for warning in self.warnings)
        return "\n".join(map(printable, (line, *warnings)))


def load(
    job: Job, options: MaskOptions = CHECKED, *, max_pixels: int = pictures.MAX_PIXELS
) -> Inputs:
    """Reads a job's picture, its mask and its sketch, if it has one.

    Args:
        job: Without a mask, the hole is what is not fully opaque, and becomes opaque.
        options: How its mask is read, checked and fitted to the picture.
        max_pixels: See `pictures.read`; of the mask as well.

    Raises:
        UsageError: One of them cannot be used, or the result's format cannot hold the picture.
    """
    inputs = read_inputs(job.image, job.mask, job.sketch, options, max_pixels=max_pixels)
    if inputs.hole is None:
        raise UsageError(f"{job.image} has no transparency to be the hole; give --masks.")
    if job.mask is None:
        check_hole(inputs.hole, options, name=f"The transparency of {job.image}")
    pictures.check_writable(job.result, inputs.picture)
    return inputs


def complete(
    planned: Iterable[Job | Failure],
    *,
    load: Callable[[Job], Inputs],
    fill: Fill,
    write: Callable[[Path, np.ndarray, Picture], None] = pictures.write,
    report: Callable[[Done | Failure], None],
) -> list[Done | Failure]:
    """Does jobs: threads read and write beside `fill`, at most `IN_MEMORY` pictures at once.

    Args:
        planned: What to do; failures go through to the end.
        load: Reads a job's picture, mask and sketch; in threads.
        fill: Makes completed pixels of their arrays, and says by what strategy; one after the other
            in the thread that calls.
        write: Writes a result so that it is there as a whole or not at all; in threads.
        report: Is told how each job ended, one at a time and as soon as it did, which may be out of
            order; in threads.

    Returns:
        How each job ended, in order. What is handed in, the disk and the device fail one job;
        other errors, which are of the program, end all of them, as does Ctrl-C: what was to be
        written then is.
    """
    reporting = threading.Lock()

    @_stage
    def loaded(job: Job):
        return job, load(job)

    @_stage
    def filled(job: Job, inputs: Inputs):
        picture, hole, sketch, warnings = inputs
        began = time.monotonic()
        pixels, strategy, *_ = fill(picture, hole, sketch)
        seconds = time.monotonic() - began
        done = Done(job, size(pixels), float(hole.mean()), strategy, seconds, warnings)
        return job, picture, pixels, done

    @_stage
    def written(job: Job, picture: Picture, pixels: np.ndarray, done: Done):
        write(job.result, pixels, picture)
        return done._replace(left_out=pictures.left_out(job.result, picture))

    def ended(item: tuple) -> Done | Failure:
        end = written(item)
        with reporting:
            report(end)
        return end

    items = (item if isinstance(item, Failure) else (item,) for item in planned)
    with ThreadPoolExecutor(READ_AHEAD) as readers, ThreadPoolExecutor(WRITE_BEHIND) as writers:
        pictures_in = _in_order(readers, loaded, items, READ_AHEAD)
        return list(_in_order(writers, ended, map(filled, pictures_in), WRITE_BEHIND))


def _stage(work: Callable) -> Callable:
    """Makes of `work`, on a tuple that begins with a job, a step that fails that job alone."""

    def step(item: tuple):
        if isinstance(item, Failure):
            return item
        try:
            return work(*item)
        # Of jax, among the last: a picture that is too large for the device.
        except (UsageError, OSError, MemoryError, RuntimeError) as error:
            image, _, result, _ = item[0]
            reason = f"{error}".partition("\n")[0] or type(error).__name__
            named = reason if f"{image}" in reason else f"{image} -> {result}: {reason}"
            return Failure(named, isinstance(error, UsageError))

    return step


def _in_order(
    pool: Executor, work: Callable[[Item], Made], items: Iterable[Item], ahead: int
) -> Iterator[Made]:
    """`pool.map`, but it takes an item only while fewer than `ahead` are under way."""
    pending = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) == ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
