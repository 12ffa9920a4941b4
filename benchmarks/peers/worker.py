"""The two sides of a comparison, and the process of one side in one case."""

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers.protocol import Case, Results

from deepfill_jax.errors import RunError

BENCHMARKS = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-3  # Largest difference, absolute for values up to 1 and relative above.


class Peer(NamedTuple):
    """One side of a comparison."""

    name: str
    command: Sequence[str]
    weights: Path
    paths: Sequence[Path] = ()  # Additional import folders.
    # Largest image side in pixels; at 1024, MMagic's attention takes 21 GB.
    largest: int = 512


class Worker:
    """A peer's process for one case."""

    def __init__(self, peer: Peer, case: Case, results: Path, cache: Path, *batches: Path):
        """Starts the process.

        Args:
            peer: The side.
            case: The case to run.
            results: The file to which it writes results.
            cache: The folder of JAX's compilation cache.
            batches: A file of batches; without it, every call gets the case's images.
        """
        self._peer, self._case, self._results = peer, case, results
        paths = os.pathsep.join(map(str, (BENCHMARKS, BENCHMARKS.parent, *peer.paths)))
        self._process = subprocess.Popen(
            [*peer.command, str(case), peer.weights, results, *batches],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": paths,
                "JAX_COMPILATION_CACHE_DIR": f"{cache}",
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            },
        )

    def call(self, name: str | None = None) -> dict[str, Any]:
        """Makes one call, by default the case's, and returns its measurements."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{name or self._case.kind}\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RunError(f"{self._peer.name} failed in {self._case}; see its error above.")
        return json.loads(answer)

    def turn(self) -> float:
        """Makes two calls, one round, and returns the seconds of the second.

        The first call is slowed down by the state of caches and memory that the other side left. On
        a virtual machine, this can take seconds, because free memory returns to the host.
        """
        self.call()
        return self.call()["seconds"]

    def result(self) -> Results:
        """Returns the results of the last call."""
        with np.load(self._results) as arrays:
            return dict(arrays)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def largest_difference(case: Case, sides: Sequence[Peer], workers: Sequence[Worker]) -> float:
    """Returns the largest difference of the last results, relative for values above 1.

    Raises:
        RunError: It exceeds `TOLERANCE`.
    """
    ours, theirs = workers[0].result(), workers[-1].result()
    differences = {
        name: float(np.max(np.abs(ours.get(name, np.nan) - x) / np.maximum(np.abs(x), 1)))
        for name, x in theirs.items()
    }
    # `max` alone would miss NaN.
    wrong = {name: x for name, x in differences.items() if not x <= TOLERANCE}
    if wrong:
        raise RunError(
            f"{' and '.join(side.name for side in sides)} compute different results in {case}: "
            f"differences {wrong}, tolerance {TOLERANCE}. Their times cannot be compared."
        )
    return max(differences.values())
