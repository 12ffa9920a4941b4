"""The streams of batches for training and evaluation: order, resuming, several processes."""

import subprocess
import sys

import numpy as np
import pytest
from data_streams import (
    RANDOM,
    assert_same,
    evaluation,
    noise,
    numbers,
    take,
    training,
    write_pictures,
)
from PIL import Image

from deepfill_jax import masks
from deepfill_jax.data import examples
from deepfill_jax.errors import UsageError


def test_training_batches_have_the_documented_shapes_and_types(tmp_path):
    batch = next(training(write_pictures(tmp_path, 6)))
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "image": ((4, 16, 16, 3), np.uint8),
        "mask": ((4, 16, 16, 1), np.uint8),
    }
    assert set(np.unique(batch["mask"])) == {0, 1}
    assert len({mask.tobytes() for mask in batch["mask"]}) == 4  # Each example has its own mask.


def test_each_epoch_is_a_new_permutation_of_the_files(tmp_path):
    source = write_pictures(tmp_path, 10)
    stream = numbers(take(10, training(source, batch_size=3)))
    epochs = [stream[:10], stream[10:20], stream[20:30]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert stream != numbers(take(10, training(source, batch_size=3, seed=1)))
    for number, epoch in enumerate(epochs):
        assert epoch == examples.make_rng(0, number, examples.ORDER).permutation(10).tolist()


@pytest.mark.parametrize("first_step", [1, 3, 5, 13])
def test_training_resumes_where_it_stopped(tmp_path, first_step):
    source = write_pictures(tmp_path, 10)
    whole = take(16, training(source))
    assert_same(whole, take(16, training(source)))
    assert_same(whole[first_step:], take(16 - first_step, training(source, first_step=first_step)))


def test_batches_do_not_depend_on_worker_timing(tmp_path):
    source = write_pictures(tmp_path, 10)
    Image.fromarray(noise(1500, 1500)).save(tmp_path / "03.png")  # As slow as 100 others.
    order = [examples.make_rng(0, epoch, examples.ORDER).permutation(10) for epoch in range(4)]
    alone = [
        examples.make_example(source.picture(i), RANDOM, masks.box_and_strokes, seed=0, index=index)
        for index, i in enumerate(np.concatenate(order))
    ]
    batches = take(10, training(source))
    for name, expected in zip(("image", "mask"), zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(
            np.concatenate([batch[name] for batch in batches]), np.stack(expected)
        )


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("stream", [lambda *a, **o: take(5, training(*a, **o)), evaluation])
def test_several_processes_see_the_batches_of_a_single_process(tmp_path, count, stream):
    source = write_pictures(tmp_path, 10)
    parts = [
        stream(source, RANDOM, batch_size=8, process_index=index, process_count=count)
        for index in range(count)
    ]
    together = [
        {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        for batches in zip(*parts, strict=True)
    ]
    assert_same(together, stream(source, RANDOM, batch_size=8))


@pytest.mark.parametrize("stream", [training, evaluation])
def test_invalid_seed_or_batch_size_is_refused_at_once(tmp_path, stream):
    source = write_pictures(tmp_path, 2)
    with pytest.raises(UsageError, match="config.batch_size=6 must be a multiple of 4"):
        stream(source, batch_size=6, process_count=4)
    with pytest.raises(UsageError, match="config.batch_size=0"):
        stream(source, batch_size=0)
    with pytest.raises(UsageError, match="config.seed=-1"):
        stream(source, seed=-1)


def test_evaluation_is_one_ordered_pass_with_a_padded_last_batch(tmp_path):
    batches = evaluation(write_pictures(tmp_path, 10))
    assert numbers(batches)[:10] == list(range(10))
    assert [batch["image"].shape for batch in batches] == [(4, 16, 16, 3)] * 3
    valid = np.concatenate([batch["valid"] for batch in batches])
    assert valid.dtype == bool and valid.tolist() == [True] * 10 + [False] * 2
    index = np.concatenate([batch["index"] for batch in batches])
    assert index.dtype == np.int64 and index.tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize(
    "num_examples, index, batches",
    [(5, [0, 2, 4, 6, 8], 2), (4, [0, 2, 5, 7], 1), (1, [0], 1), (99, list(range(10)), 3)],
)
def test_evaluated_examples_are_evenly_spaced(tmp_path, num_examples, index, batches):
    source = write_pictures(tmp_path, 10)
    evaluated = evaluation(source, RANDOM, num_examples=num_examples)
    assert len(evaluated) == batches
    everything = evaluation(source, RANDOM, batch_size=10)[0]
    for name in ("index", "image", "mask"):
        rows = np.concatenate([batch[name][batch["valid"]] for batch in evaluated])
        np.testing.assert_array_equal(rows, everything[name][index])


def test_evaluation_examples_do_not_depend_on_the_batch_size(tmp_path):
    source = write_pictures(tmp_path, 6)
    small, large = (evaluation(source, RANDOM, batch_size=size) for size in (2, 6))
    for name in ("image", "mask"):
        np.testing.assert_array_equal(
            np.concatenate([batch[name] for batch in small]), large[0][name]
        )


def test_unread_stream_does_not_block_process_exit(tmp_path):
    write_pictures(tmp_path, 3)
    script = f"""
from deepfill_jax import masks
from deepfill_jax.data import examples, pipeline, sources
source = sources.open_source("folder:{tmp_path}")
size = examples.Preprocessing(64, 0, False, False)
stream = pipeline.Stream(source, size, masks.brush_strokes, seed=0, batch_size=4)
batches = pipeline.training_batches(stream)
next(batches)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True)
