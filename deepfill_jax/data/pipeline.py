"""Batches of images and masks: tf.data yields the items, worker processes make the examples.

With batch size B, global batch b holds elements [b * B, (b + 1) * B) of a stream that depends only
on the source and the seed. Process p of P gets rows [p * B/P, (p + 1) * B/P) of each batch. The
batches therefore do not depend on the number of processes, and a run can resume at any of them.
"""

import collections
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import tensorflow as tf

from deepfill_jax.data import examples, order, workers
from deepfill_jax.data.examples import Preprocessing
from deepfill_jax.data.sources import Source
from deepfill_jax.errors import UsageError
from deepfill_jax.masks import DrawMask

Batch = dict[str, np.ndarray]
# The arrays of a batch, and the rows that workers cannot make.
Made = tuple[list[np.ndarray], list[int]]
# Indices and items of a batch in progress, and the future of its arrays.
Started = tuple[np.ndarray, np.ndarray, Future[Made]]

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0  # Interval in which an evaluation reports its progress.
READY_BATCHES = 2  # Batches that are finished ahead of use, besides one per worker in progress.


@dataclasses.dataclass(frozen=True)
class Stream:
    """Everything that determines the examples of a stream, and how this process reads its part.

    Attributes:
        source: The images.
        preprocessing: Crop, size and flip that turn a file into an example.
        draw_mask: Draws the mask of one example; see `masks.sampler`.
        seed: Seed of order, crops, flips, masks and sketches; 0 or more.
        batch_size: Global batch size, a multiple of `process_count`.
        sketch_probability: See `examples.make_example`; above 0, the source must have edge maps.
        process_index: Number of the process whose rows of each batch are read.
        process_count: Number of processes that share each batch.
        workers: Number of worker processes that make the examples of this process.

    Raises:
        UsageError: The seed is negative, or the processes cannot share a batch equally.
    """

    source: Source
    preprocessing: Preprocessing
    draw_mask: DrawMask
    seed: int
    batch_size: int
    sketch_probability: float | None = None
    process_index: int = 0
    process_count: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"config.seed={self.seed} must be 0 or more.")
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise UsageError(
                f"config.batch_size={self.batch_size} must be a multiple of {self.process_count}, "
                "the number of processes."
            )

    def elements(self, batch: int) -> np.ndarray:
        """Returns the elements that are this process's rows of a global batch, int64 [B/P]."""
        rows = self.batch_size // self.process_count
        return batch * self.batch_size + self.process_index * rows + np.arange(rows)


def training_batches(stream: Stream, first_step: int = 0) -> Iterator[Batch]:
    """Streams shuffled batches without end.

    Args:
        stream: The examples.
        first_step: Number of the first batch; a resumed run continues with the next one.

    Returns:
        Iterator of {"image": uint8 [B/P, S, S, 3], "mask": uint8 [B/P, S, S, 1]}; if the stream has
        a `sketch_probability`, also {"sketch": uint8 [B/P, S, S, 1]}.

    Raises:
        UsageError: While iterating: The source can no longer be read.
        RunError: While iterating: A worker process has ended.
    """
    shuffled = order.shuffled(len(stream.source), stream.seed)
    numbers = tf.data.Dataset.range(first_step, tf.int64.max)
    batches = _batches(stream, numbers, lambda elements: (elements, shuffled(elements)))
    return ({name: x for name, x in batch.items() if name != "index"} for batch in batches)


def evaluation_batches(stream: Stream, num_examples: int = 0) -> Iterator[Batch]:
    """Streams examples once in source order, always with the same crops and masks.

    All batches have the same shape, and all processes get the same number of them: the last batch
    is filled up with examples that are not `valid`.

    Args:
        stream: The examples.
        num_examples: Maximum number of examples, evenly spaced over the source, which may be
            sorted by class; 0 takes all. An image has the same crop and mask in any selection.

    Returns:
        Iterator of the arrays of `training_batches` and {"valid": bool [B/P], "index": int64
        [B/P], the position in the source}.

    Raises:
        UsageError, RunError: See `training_batches`.
    """
    source = stream.source
    count = min(num_examples or len(source), len(source))
    spaced = order.spaced(len(source), count)
    numbers = tf.data.Dataset.range(-(-count // stream.batch_size))
    logged = time.monotonic()
    batches = _batches(stream, numbers, lambda elements: (spaced(elements), spaced(elements)))
    for number, batch in enumerate(batches):
        if stream.process_index == 0 and time.monotonic() - logged > PROGRESS_SECONDS:
            done = number * stream.batch_size
            logger.info("%s: %d of %d images are evaluated.", source.name, done, count)
            logged = time.monotonic()
        yield {**batch, "valid": stream.elements(number) < count}


def _batches(
    stream: Stream,
    numbers: tf.data.Dataset,
    choose: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> Iterator[Batch]:
    """Yields this process's rows of the batches of these numbers, prefetching some batches.

    `choose` returns the indices that seed the examples, and the items, of elements of the stream.
    """
    source, rows = stream.source, stream.batch_size // stream.process_count
    size = stream.preprocessing.image_size
    make = functools.partial(
        examples.make_example,
        preprocessing=stream.preprocessing,
        draw_mask=stream.draw_mask,
        seed=stream.seed,
        sketch_probability=stream.sketch_probability,
    )
    channels = {"image": 3, "mask": 1}
    if stream.sketch_probability is not None:
        channels["sketch"] = 1

    def start(index: np.ndarray, items: np.ndarray) -> Started:
        shapes = [(rows, size, size, count) for count in channels.values()]
        encoded = [source.encoded(item) for item in items.tolist()]
        return (
            index,
            items,
            workers.pool(stream.workers).submit(make, index.tolist(), encoded, shapes),
        )

    def finish(index: np.ndarray, items: np.ndarray, made_by_worker: Future[Made]) -> Batch:
        parts, unfilled = made_by_worker.result()
        batch = {"index": index, **dict(zip(channels, parts, strict=True))}
        for row in unfilled:
            made = make(source.picture(int(items[row])), index=int(batch["index"][row]))
            for name, part in zip(channels, made, strict=True):
                batch[name][row] = part
        return batch

    own = numbers.map(
        lambda number: tf.numpy_function(
            lambda number: choose(stream.elements(number)), [number], (tf.int64, tf.int64)
        )
    )
    started: collections.deque[Started] = collections.deque()
    try:
        for index, items in own.as_numpy_iterator():
            started.append(start(index, items))
            if len(started) > stream.workers + READY_BATCHES:
                yield finish(*started.popleft())
        while started:
            yield finish(*started.popleft())
    finally:
        for _, _, made_by_worker in started:
            made_by_worker.cancel()
