"""Worker processes that make training examples, one per CPU core.

    python -m deepfill_jax.data.workers

is the command of a worker: it reads jobs from standard input and writes examples to standard
output. Threads do not scale here: an example takes dozens of short calls, each of which waits for
the global interpreter lock. `multiprocessing` does not work either: it forks a program that runs
threads of JAX and TensorFlow, or imports that program again.
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

from deepfill_jax.data import examples
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
        self._workers: list[subprocess.Popen[bytes]] = []

    def submit(
        self,
        recipe: Recipe,
        indices: Sequence[int],
        pictures: Sequence[examples.Encoded],
        parts: Sequence[np.ndarray],
    ) -> concurrent.futures.Future[list[int]]:
        """Starts a job that makes one example per picture.

        Args:
            recipe: The function that makes an example; a worker receives the same object only once.
            indices: The index of each example.
            pictures: The encoded pictures, as `examples.load` takes them.
            parts: One array per part of an example (image, mask, ...); example i becomes row i.

        Returns:
            A future of the rows that are not written because their picture cannot be read. It
            raises UsageError if the recipe does, and RunError if the worker process ends.
        """
        return self._threads.submit(self._run, recipe, indices, pictures, parts)

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
        parts: Sequence[np.ndarray],
    ) -> list[int]:
        if not hasattr(self._own, "worker"):
            self._own.worker, self._own.recipe = _start(), None
            self._workers.append(self._own.worker)
        worker = self._own.worker
        new_recipe = None if recipe is self._own.recipe else recipe
        try:
            worker.stdin.write(pickle.dumps((new_recipe, indices, pictures)))
            worker.stdin.flush()
            self._own.recipe = recipe
            unfilled = pickle.load(worker.stdout)
            if isinstance(unfilled, UsageError):
                raise unfilled
            for row in sorted(set(range(len(indices))) - set(unfilled)):
                for part in parts:
                    if worker.stdout.readinto(part[row]) < part[row].nbytes:
                        raise EOFError
        except (BrokenPipeError, EOFError) as error:
            raise RunError(
                f"A data worker process ended with exit code {worker.wait()}; -9 usually means "
                "that the machine ran out of memory. Rerun the command to resume."
            ) from error
        return unfilled


@functools.cache
def pool() -> Pool:
    """Returns the worker pool shared by all streams of this program, one worker per usable core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shared = Pool(cores or 1)
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
    while jobs.peek(1):
        new_recipe, indices, pictures = pickle.load(jobs)
        recipe = new_recipe or recipe
        assert recipe is not None  # It comes with a worker's first job.
        try:
            batch = [_make(recipe, *pair) for pair in zip(pictures, indices, strict=True)]
        except UsageError as error:
            batch = []
            pickle.dump(error, replies)
        else:
            pickle.dump([row for row, example in enumerate(batch) if example is None], replies)
        for example in filter(None, batch):
            for part in example:
                replies.write(part.data)
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
    cv2.setNumThreads(1)  # There is already one process per core.
    with open(0, "rb", closefd=False) as jobs, os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # Other prints go to standard error, so that they do not corrupt replies.
        _serve(jobs, replies)


if __name__ == "__main__":
    main()
