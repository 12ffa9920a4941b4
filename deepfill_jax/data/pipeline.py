"""Batches of images and masks: tf.data orders the pictures, worker processes make the examples.

With batch size B, global batch b holds elements [b * B, (b + 1) * B) of a stream that depends only
on the source and the seed. Process p of P gets rows [p * B/P, (p + 1) * B/P) of each batch. The
batches therefore do not depend on the number of processes, and a run can resume at any of them.
"""

import collections
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

READY_BATCHES = 2  # Batches that are finished ahead of use, besides one per worker in progress.


def training_batches(
    source: Source,
    preprocessing: Preprocessing,
    draw_mask: DrawMask,
    *,
    seed: int,
    batch_size: int,
    first_step: int = 0,
    sketch_probability: float | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Streams shuffled batches without end.

    Args:
        source: The pictures.
        preprocessing: How a picture becomes an image.
        draw_mask: Draws the mask of one example; see `masks.sampler`.
        seed: Of order, crops, flips, masks and sketches.
        batch_size: Global, a multiple of `process_count`.
        first_step: Number of the first batch, to go on where another run stopped.
        sketch_probability: See `examples.make_example`; above 0 the source must have edge maps.
        process_index: Whose rows of each batch to yield.
        process_count: Between how many processes each batch is divided.

    Returns:
        Iterator of {"image": uint8 [B/P, S, S, 3], "mask": uint8 [B/P, S, S, 1]}, and with an
        `sketch_probability` {"sketch": uint8 [B/P, S, S, 1]}.

    Raises:
        UsageError: The seed is negative or the processes cannot share a batch. While iterating:
            the source can no longer be read.
        RunError: While iterating: a worker process has ended.
    """
    _check(seed, batch_size, process_count)
    first = first_step * batch_size
    batches = _batches(
        source.shuffled(seed, first).enumerate(first),
        source,
        preprocessing,
        draw_mask,
        seed=seed,
        batch_size=batch_size,
        sketch_probability=sketch_probability,
        process_index=process_index,
        process_count=process_count,
    )
    return ({name: x for name, x in batch.items() if name != "index"} for batch in batches)


def evaluation_batches(
    source: Source,
    preprocessing: Preprocessing,
    draw_mask: DrawMask,
    *,
    seed: int,
    batch_size: int,
    num_examples: int = 0,
    sketch_probability: float | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Streams the examples once in source order, always with the same crops and masks.

    All batches have the same shape, and all processes get the same number of them: the last batch
    is filled up with examples that are not `valid`.

    Args:
        source: The pictures.
        preprocessing: How a picture becomes an image.
        draw_mask: Draws the mask of one example; see `masks.sampler`.
        seed: Of crops, flips, masks and sketches.
        batch_size: Global, a multiple of `process_count`.
        num_examples: At most so many, from the first; 0 takes all.
        sketch_probability: See `examples.make_example`; above 0 the source must have edge maps.
        process_index: Whose rows of each batch to yield.
        process_count: Between how many processes each batch is divided.

    Returns:
        Iterator of the arrays of `training_batches` and {"valid": bool [B/P], "index": int64
        [B/P], the position in the source}.

    Raises:
        UsageError, RunError: See `training_batches`.
    """
    _check(seed, batch_size, process_count)
    count = min(num_examples or len(source), len(source))
    filled_up = -(-count // batch_size) * batch_size
    batches = _batches(
        source.in_order().repeat().enumerate().take(filled_up),
        source,
        preprocessing,
        draw_mask,
        seed=seed,
        batch_size=batch_size,
        sketch_probability=sketch_probability,
        process_index=process_index,
        process_count=process_count,
    )
    return ({**batch, "valid": batch["index"] < count} for batch in batches)


def _check(seed: int, batch_size: int, process_count: int) -> None:
    if seed < 0:
        raise UsageError(f"config.seed={seed} must be 0 or more.")
    if batch_size < 1 or batch_size % process_count:
        raise UsageError(
            f"config.batch_size={batch_size} must be a multiple of {process_count}, the number of "
            "processes."
        )


def _batches(
    elements: tf.data.Dataset,
    source: Source,
    preprocessing: Preprocessing,
    draw_mask: DrawMask,
    *,
    seed: int,
    batch_size: int,
    sketch_probability: float | None,
    process_index: int,
    process_count: int,
) -> Iterator[Batch]:
    """Yields this process's rows of a stream of (index, item), prefetching some batches."""
    rows = batch_size // process_count
    size = preprocessing.image_size
    own = elements.filter(lambda index, _: index % batch_size // rows == process_index)
    recipe = functools.partial(
        examples.make_example,
        preprocessing=preprocessing,
        draw_mask=draw_mask,
        seed=seed,
        sketch_probability=sketch_probability,
    )
    channels = {"image": 3, "mask": 1} | ({} if sketch_probability is None else {"sketch": 1})

    def start(index: np.ndarray, items: np.ndarray) -> tuple:
        parts = {n: np.empty((rows, size, size, count), np.uint8) for n, count in channels.items()}
        encoded = [source.encoded(item) for item in items]
        unfilled = workers.pool().submit(recipe, index.tolist(), encoded, list(parts.values()))
        return {"index": index, **parts}, items, unfilled

    def finish(batch: Batch, items: np.ndarray, unfilled: Future[list[int]]) -> Batch:
        for row in unfilled.result():
            made = recipe(source.picture(items[row]), index=batch["index"][row])
            for name, part in zip(channels, made, strict=True):
                batch[name][row] = part
        return batch

    started = collections.deque()
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
