"""Processes that make examples, as many as there are cores.

    python -m deepfill_jax.data.workers

is one of them: it reads jobs from its standard input and writes examples to its standard output.
Threads would not do: an example is dozens of short calls, and between two of them a thread waits
for the interpreter that all share. Nor would `multiprocessing`: it either copies a program that
runs threads of JAX and TensorFlow, or imports that program again.
"""

import atexit
import concurrent.futures
import functools
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

# From a picture and its index to the parts of the example: `examples.make_example`, its other
# arguments set. It is pickled, and so are the functions that it calls.
Recipe = Callable[..., tuple[np.ndarray, ...]]


class Pool:
    """Worker processes, each started when first needed and kept until this program ends.

    Attributes:
        count: How many there are at most.
    """

    def __init__(self, count: int):
        self.count = count
        self._threads = concurrent.futures.ThreadPoolExecutor(count, "examples")
        self._own = threading.local()  # Each thread talks with one worker.
        self._workers = []

    def submit(
        self,
        recipe: Recipe,
        indices: Sequence[int],
        pictures: Sequence[str | bytes],
        parts: Sequence[np.ndarray],
    ) -> concurrent.futures.Future[list[int]]:
        """Starts making one example per picture.

        Args:
            recipe: Makes them; sent to a worker once as long as it stays the same object.
            indices: The index of each.
            pictures: What `examples.load` reads.
            parts: The arrays to fill, row by row, with the parts of each example.

        Returns:
            Future of the rows that stay unfilled because their picture cannot be read. It raises
            UsageError if the recipe does, and RunError if the process ends.
        """
        return self._threads.submit(self._run, recipe, indices, pictures, parts)

    def close(self) -> None:
        """Ends the processes, after what has been submitted."""
        self._threads.shutdown()
        for worker in self._workers:
            worker.communicate()  # Closes its input, which is what ends it.

    def _run(self, recipe, indices, pictures, parts):
        if not hasattr(self._own, "worker"):
            self._own.worker, self._own.recipe = _start(), None
            self._workers.append(self._own.worker)
        worker = self._own.worker
        news = None if recipe is self._own.recipe else recipe
        try:
            worker.stdin.write(pickle.dumps((news, indices, pictures)))
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
                f"A process that makes examples has ended with exit code {worker.wait()}, of which "
                "-9 mostly means that memory is short; start again to go on."
            ) from error
        return unfilled


@functools.cache
def pool() -> Pool:
    """The processes of this program, for all its streams; one for each core that it may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shared = Pool(cores)
    atexit.register(shared.close)
    return shared


def _start() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "deepfill_jax.data.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        process_group=0,  # Ctrl-C is for the program, which then closes the pipes.
    )


def _serve(jobs: BinaryIO, replies: BinaryIO) -> None:
    """Does jobs until there are no more."""
    recipe = None
    while jobs.peek(1):
        news, indices, pictures = pickle.load(jobs)
        recipe = news or recipe
        try:
            made = [_make(recipe, *pair) for pair in zip(pictures, indices, strict=True)]
        except UsageError as error:
            made = []
            pickle.dump(error, replies)
        else:
            pickle.dump([row for row, example in enumerate(made) if example is None], replies)
        for example in filter(None, made):
            for part in example:
                replies.write(part)
        replies.flush()


def _make(recipe, picture, index):
    """The example, or None where the picture cannot be read: its source knows what to do."""
    try:
        picture = examples.load(picture)
    except (OSError, examples.UnreadablePicture):
        return None
    return recipe(picture, index=index)


def main() -> None:
    """Serves standard input and output."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Ends in silence if the program was killed.
    cv2.setNumThreads(1)  # There is a process for each core.
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # Whatever else is printed is no reply.
        _serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
