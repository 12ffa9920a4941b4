"""Worker processes that make training examples.

    python -m deepfill_jax.data.workers

is the command of a worker: it reads jobs from standard input, writes examples to memory that it
shares with the main program, and reports to standard output. Threads do not scale here: an example
takes dozens of short calls, each of which waits for the global interpreter lock. `multiprocessing`
does not work either: it forks a program that runs threads of JAX and TensorFlow, or imports that
program again.
"""

import atexit
import concurrent.futures
import functools
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO

import cv2
import numpy as np

from deepfill_jax.data import examples, shared_arrays
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.pictures import rgb

# A function of a picture and its index that returns the arrays of an example:
# `examples.make_example` with its other arguments bound. It is pickled with the functions it calls.
Recipe = Callable[..., tuple[np.ndarray, ...]]


class Pool:
    """Worker processes, each started at its first job and kept until this program ends.

    Attributes:
        count: Maximum number of worker processes.
    """

    def __init__(self, count: int):
        self.count = count
        self._threads = concurrent.futures.ThreadPoolExecutor(count, "examples")
        self._own = threading.local()  # Each thread communicates with its own worker.
        self._segments = shared_arrays.Segments()
        self._workers: list[subprocess.Popen[bytes]] = []

    def submit(
        self,
        recipe: Recipe,
        indices: Sequence[int],
        pictures: Sequence[examples.Encoded],
        shapes: shared_arrays.Shapes,
    ) -> concurrent.futures.Future[tuple[list[np.ndarray], list[int]]]:
        """Starts a job that makes one example per picture.

        Args:
            recipe: The function that makes an example; a worker receives the same object only once.
            indices: The index of each example.
            pictures: The encoded pictures, as `examples.load` takes them.
            shapes: Shape of the array of each part of the examples (image, mask, ...); example i
                becomes row i.

        Returns:
            A future of the uint8 arrays, and of the rows that are not made because their picture
            cannot be read; their content is arbitrary. It raises UsageError if the recipe does, and
            RunError if the worker process ends.
        """
        return self._threads.submit(self._run, recipe, indices, pictures, shapes)

    def close(self) -> None:
        """Ends the worker processes once all submitted jobs are done."""
        self._threads.shutdown()
        for worker in self._workers:
            worker.communicate()  # A worker ends when its standard input is closed.

    def _run(
        self,
        recipe: Recipe,
        indices: Sequence[int],
        pictures: Sequence[examples.Encoded],
        shapes: shared_arrays.Shapes,
    ) -> tuple[list[np.ndarray], list[int]]:
        if not hasattr(self._own, "worker"):
            self._own.worker, self._own.recipe = _start(), None
            self._workers.append(self._own.worker)
        worker = self._own.worker
        new_recipe = None if recipe is self._own.recipe else recipe
        path, parts = self._segments.take(shapes)
        try:
            worker.stdin.write(pickle.dumps((new_recipe, indices, pictures, path, shapes)))
            worker.stdin.flush()
            self._own.recipe = recipe
            unfilled = pickle.load(worker.stdout)
            if isinstance(unfilled, UsageError):
                raise unfilled
        except (BrokenPipeError, EOFError) as error:
            raise RunError(
                f"A data worker process ended with exit code {worker.wait()}; -9 usually means "
                "that the machine ran out of memory. Rerun the command to resume."
            ) from error
        return parts, unfilled


@functools.cache
def pool(count: int) -> Pool:
    """Returns the pool of `count` workers that all streams of this program share."""
    shared = Pool(count)
    atexit.register(shared.close)
    return shared


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "deepfill_jax.data.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        process_group=0,  # Ctrl-C should reach only the main program, which then closes the pipes.
    )


def _serve(jobs: io.BufferedReader, replies: BinaryIO) -> None:
    """Processes jobs until the input ends."""
    recipe = None
    opened = functools.cache(shared_arrays.open_segment)
    while jobs.peek(1):
        new_recipe, indices, pictures, path, shapes = pickle.load(jobs)
        recipe = new_recipe or recipe
        assert recipe is not None  # It comes with a worker's first job.
        try:
            # All are made before any is copied. If the memory of each were freed at once, the C
            # library would return it to the system, and a third fewer examples would be made.
            batch = [_make(recipe, *pair) for pair in zip(pictures, indices, strict=True)]
        except UsageError as error:
            pickle.dump(error, replies)
        else:
            parts = shared_arrays.split(opened(path), shapes)
            unfilled = [row for row, example in enumerate(batch) if example is None]
            for row, example in enumerate(batch):
                for part, made in zip(parts, example or (), strict=example is not None):
                    part[row] = made
            pickle.dump(unfilled, replies)
        replies.flush()


def _make(recipe: Recipe, encoded: examples.Encoded, index: int) -> tuple[np.ndarray, ...] | None:
    """Returns the example, or None if the picture cannot be read, which its source handles."""
    try:
        picture = examples.load(encoded)
    except (OSError, rgb.UnreadableImageError):
        return None
    return recipe(picture, index=index)


def main() -> None:
    """Serves jobs from standard input."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Ends silently if the program was killed.
    cv2.setNumThreads(1)  # There are enough processes for all cores.
    with open(0, "rb", closefd=False) as jobs, os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # Other prints go to standard error, so that they do not corrupt replies.
        _serve(jobs, replies)


if __name__ == "__main__":
    main()
