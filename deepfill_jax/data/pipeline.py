"""Batches of images and masks: tf.data orders the pictures, worker processes make the examples.

With batch size B, global batch b holds elements [b * B, (b + 1) * B) of a stream that depends only
on the source and the seed. Process p of P gets rows [p * B/P, (p + 1) * B/P) of each batch. The
batches therefore do not depend on the number of processes, and a run can resume at any of them.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
import tensorflow as tf

from deepfill_jax.data import examples, workers
from deepfill_jax.data.examples import Preprocessing
from deepfill_jax.data.sources import Source
from deepfill_jax.errors import UsageError
from deepfill_jax.masks import DrawMask

Batch = dict[str, np.ndarray]
# A batch in progress, its items, and a future of the rows that workers cannot make.
Started = tuple[Batch, np.ndarray, Future[list[int]]]

READY_BATCHES = 2  # Batches that are finished ahead of use, besides one per worker in progress.


@dataclasses.dataclass(frozen=True)
class Stream:
    """Everything that determines the examples of a stream, and the part that this process reads.

    Attributes:
        source: The image files.
        preprocessing: Crop, size and flip that turn a file into an example.
        draw_mask: Draws the mask of one example; see `masks.sampler`.
        seed: Seed of order, crops, flips, masks and sketches; 0 or more.
        batch_size: Global batch size, a multiple of `process_count`.
        sketch_probability: See `examples.make_example`; above 0, the source must have edge maps.
        process_index: Number of the process whose rows of each batch are read.
        process_count: Number of processes that share each batch.

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

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"config.seed={self.seed} must be 0 or more.")
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise UsageError(
                f"config.batch_size={self.batch_size} must be a multiple of {self.process_count}, "
                "the number of processes."
            )


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
    first = first_step * stream.batch_size
    batches = _batches(stream, stream.source.shuffled(stream.seed, first).enumerate(first))
    return ({name: x for name, x in batch.items() if name != "index"} for batch in batches)


def evaluation_batches(stream: Stream, num_examples: int = 0) -> Iterator[Batch]:
    """Streams the examples once in source order, always with the same crops and masks.

    All batches have the same shape, and all processes get the same number of them: the last batch
    is filled up with examples that are not `valid`.

    Args:
        stream: The examples.
        num_examples: Maximum number of examples, from the first; 0 takes all.

    Returns:
        Iterator of the arrays of `training_batches` and {"valid": bool [B/P], "index": int64
        [B/P], the position in the source}.

    Raises:
        UsageError, RunError: See `training_batches`.
    """
    source, batch_size = stream.source, stream.batch_size
    count = min(num_examples or len(source), len(source))
    filled_up = -(-count // batch_size) * batch_size
    batches = _batches(stream, source.in_order().repeat().enumerate().take(filled_up))
    return ({**batch, "valid": batch["index"] < count} for batch in batches)


def _batches(stream: Stream, elements: tf.data.Dataset) -> Iterator[Batch]:
    """Yields this process's rows of a stream of (index, item), prefetching some batches."""
    source, batch_size = stream.source, stream.batch_size
    rows = batch_size // stream.process_count
    size = stream.preprocessing.image_size
    own = elements.filter(lambda index, _: index % batch_size // rows == stream.process_index)
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
        parts = {n: np.empty((rows, size, size, count), np.uint8) for n, count in channels.items()}
        encoded = [source.encoded(item) for item in items]
        unfilled = workers.pool().submit(make, index.tolist(), encoded, list(parts.values()))
        return {"index": index, **parts}, items, unfilled

    def finish(batch: Batch, items: np.ndarray, unfilled: Future[list[int]]) -> Batch:
        for row in unfilled.result():
            made = make(source.picture(items[row]), index=batch["index"][row])
            for name, part in zip(channels, made, strict=True):
                batch[name][row] = part
        return batch

    started: collections.deque[Started] = collections.deque()
    try:
        for index, items in own.batch(rows, drop_remainder=True).as_numpy_iterator():
            started.append(start(index, items))
            if len(started) > workers.pool().count + READY_BATCHES:
                yield finish(*started.popleft())
        while started:
            yield finish(*started.popleft())
    finally:
        for _, _, unfilled in started:
            unfilled.cancel()
