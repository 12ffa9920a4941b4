"""The protocol of peer processes: one process per case, one call per line of standard input.

    python -m peers.NAME CASE WEIGHTS RESULTS [BATCHES]

A line on standard input names a call: the case's kind or, in training, "weights". The peer makes
the call, writes the results to RESULTS (.npz) and prints a line of JSON: wall-clock and CPU seconds
of the call, the peak memory of the process, versions and threads. Each call gets the images of the
case or, with BATCHES, the next batch of that file (.npz): "image" [N, B, S, S, 3], "mask"
[N, B, S, S, 1].
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Results = dict[str, np.ndarray]
Calls = Mapping[str, Callable[[], Results]]  # Calls by name.
Pictures = Iterator[tuple[np.ndarray, np.ndarray]]  # See `Case.pictures`.


class Case(NamedTuple):
    """A program to time: "forward-256-4" completes a batch of 4 images of 256 x 256 pixels."""

    kind: str
    size: int
    batch: int

    @classmethod
    def parse(cls, text: str, kinds: Sequence[str] = ("forward", "train")) -> "Case":
        """Parses a command line argument "KIND-SIZE-BATCH" with one of the kinds."""
        match = re.fullmatch(rf"({'|'.join(kinds)})-(\d+)-(\d+)", text)
        case = cls(match[1], int(match[2]), int(match[3])) if match else None
        if not case or case.size % 8 or not case.size or not case.batch:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a case: it must be {' or '.join(kinds)}, then -SIZE-BATCH, with "
                "a size that is a multiple of 8."
            )
        return case

    def __str__(self) -> str:
        return "-".join(map(str, self))

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns images, uint8 RGB [B, S, S, 3], and masks [B, S, S, 1], equal for all peers."""
        sides = self.batch, self.size, self.size
        image = np.random.default_rng(0).integers(0, 256, (*sides, 3), dtype=np.uint8)
        mask = np.zeros((*sides, 1), np.uint8)
        # The whole batch has one hole, because nipponjo's attention uses the first mask for all.
        mask[:, self.size // 4 : self.size // 2, self.size // 4 : 3 * self.size // 4] = 1
        return image, mask


def read(batches: Path) -> Pictures:
    """Reads the batches of a file, in order."""
    with np.load(batches) as arrays:
        return zip(arrays["image"], arrays["mask"], strict=True)


def cores() -> int:
    """Returns the number of cores that this process may use, which is JAX's number of threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cpu() -> str:
    """Returns the processor's name as reported by the system."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_gigabytes() -> float:
    """Returns the peak memory (resident set size) of the process in GB."""
    status = Path("/proc/self/status")
    if status.exists():  # On Linux, `ru_maxrss` starts at the parent's value.
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def serve(make_calls: Callable[[Case, Path, Pictures], Calls], about: dict[str, Any]) -> None:
    """Serves calls until standard input ends.

    Args:
        make_calls: Returns the calls for a case, a file of weights and the images. "forward"
            returns "refined" and "completed", RGB [B, S, S, 3] in [-1, 1]; "train" makes a training
            step and returns the losses by the names of `train.step`; "weights" returns the weights
            of both networks by the peer's own names.
        about: Versions and threads, which are added to each answer.
    """
    case = Case.parse(sys.argv[1])
    weights, results, *batches = map(Path, sys.argv[2:])
    answers, sys.stdout = sys.stdout, sys.stderr  # Keeps prints of libraries out of the answers.
    pictures = read(*batches) if batches else itertools.repeat(case.pictures())
    calls = make_calls(case, weights, pictures)
    for line in sys.stdin:
        call = calls[line.strip()]
        start, cpu_start = time.perf_counter(), time.process_time()
        result = call()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        answer = {"seconds": seconds, "cpu_seconds": cpu, "gb": peak_gigabytes(), **about}
        np.savez(results, **result)
        print(json.dumps(answer), file=answers, flush=True)
