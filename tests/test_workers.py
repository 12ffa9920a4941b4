import functools
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import recipes
from PIL import Image
from training import make_config

from deepfill_jax import distributed
from deepfill_jax.data import shared_arrays, streams, workers
from deepfill_jax.errors import RunError, UsageError


def encoded(colour):
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), (colour, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def pool():
    pool = workers.Pool(1)
    yield pool
    pool.close()


def run(pool, recipe, pictures):
    """Returns the colours and indices that the recipe received, without those of unfilled rows."""
    indices, shape = list(range(10, 10 + len(pictures))), (len(pictures), 1)
    parts, unfilled = pool.submit(recipe, indices, pictures, [shape] * 2).result(timeout=60)
    return [np.delete(part[:, 0], unfilled).tolist() for part in parts], unfilled


def test_rows_are_filled_from_bytes_and_from_files(pool, tmp_path):
    (tmp_path / "3.png").write_bytes(encoded(3))
    pictures = [encoded(1), str(tmp_path / "3.png")]
    assert run(pool, recipes.see, pictures) == ([[1, 3], [10, 11]], [])


def test_rows_of_unreadable_pictures_are_reported(pool, tmp_path):
    pictures = [b"not an image", encoded(2), str(tmp_path / "missing.png"), encoded(4)]
    assert run(pool, recipes.see, pictures) == ([[2, 4], [11, 13]], [0, 2])


def test_output_of_a_recipe_goes_to_stderr(pool, capfd):
    assert run(pool, recipes.talk, [encoded(1)]) == ([[1], [10]], [])
    pool.close()
    assert capfd.readouterr().err == "a picture\n"


def test_recipe_is_sent_to_a_worker_only_when_it_changes(pool):
    first, second = recipes.Counted(), recipes.Counted()
    for recipe in (first, first, second, second, first):
        run(pool, recipe, [encoded(1)])
    assert (first.times_sent, second.times_sent) == (2, 1)


def test_usage_error_is_raised_and_the_worker_survives(pool):
    for _ in range(2):
        with pytest.raises(UsageError, match="picture 11"):
            run(pool, functools.partial(recipes.refuse, refused=11), [encoded(1), encoded(2)])
    assert run(pool, recipes.see, [encoded(5)]) == ([[5], [10]], [])


def test_unpicklable_recipe_leaves_the_pool_usable(pool):
    with pytest.raises(AttributeError, match="pickle"):
        run(pool, lambda picture, index: None, [encoded(1)])
    assert run(pool, recipes.see, [encoded(5)]) == ([[5], [10]], [])


def test_dead_worker_raises_run_error(pool):
    for _ in range(2):
        with pytest.raises(RunError, match="ended with exit code 7"):
            run(pool, recipes.die, [encoded(1)])


def test_workers_start_at_their_first_job_and_end_with_the_pool():
    pool = workers.Pool(2)
    assert not pool._workers
    run(pool, recipes.see, [encoded(1)])
    run(pool, recipes.see, [encoded(1)])
    assert len(pool._workers) == 1
    pool.close()
    assert [worker.returncode for worker in pool._workers] == [0]


def test_workers_do_not_receive_ctrl_c(pool):
    run(pool, recipes.see, [encoded(1)])
    assert os.getpgid(pool._workers[0].pid) != os.getpgid(0)


def test_workers_of_a_killed_program_end_silently(tmp_path):
    (tmp_path / "1.png").write_bytes(encoded(1))
    script = f"""
import os, recipes
from deepfill_jax.data import workers
pool = workers.pool(2)
picture, size = {str(tmp_path / "1.png")!r}, 1 << 20
pool.submit(recipes.large, [0], [picture], [(1, size)]).result()
pool.submit(recipes.large, [0] * 64, [picture] * 64, [(64, size)])
os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # `run` waits for all processes that hold this stderr, including the worker.
    killed = subprocess.run(
        [sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, timeout=60
    )
    assert (killed.returncode, killed.stderr) == (-9, b"")


def test_memory_of_garbage_is_reused_and_arrays_in_use_keep_theirs():
    segments = shared_arrays.Segments()
    shapes = [(2, 3), (2, 1)]
    path, (image, mask) = segments.take(shapes)
    assert (image.shape, mask.shape) == ((2, 3), (2, 1))
    content = shared_arrays.open_segment(path)
    content[:] = range(8)
    assert image.tolist() == [[0, 1, 2], [3, 4, 5]] and mask.tolist() == [[6], [7]]
    row = image[1]
    del image, mask
    other, parts = segments.take(shapes)
    assert other != path  # A view of the first segment is still in use.
    del row
    assert segments.take(shapes)[0] == path
    del parts
    assert segments.take(shapes)[0] == other


def test_batches_that_are_kept_do_not_change(pool):
    kept = [run_arrays(pool, [encoded(i), encoded(i + 1)]) for i in range(0, 40, 2)]
    assert [red[:, 0].tolist() for red, _ in kept] == [[i, i + 1] for i in range(0, 40, 2)]


def run_arrays(pool, pictures):
    shape = (len(pictures), 1)
    future = pool.submit(recipes.see, range(len(pictures)), pictures, [shape] * 2)
    return future.result(timeout=60)[0]


def test_config_sets_the_number_of_workers(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "1.png")
    config = make_config(tmp_path)
    for count, expected in ((0, distributed.own_cores()), (3, 3)):
        config.data.workers = count
        stream = streams.training_batches(config).args[0]
        assert stream.workers == expected
