"""How scripts here talk to a peer: they start a process for one case and ask for one call a line.

    python -m peers.NAME CASE WEIGHTS RESULTS [BATCHES]

A line on standard input names a call: the case's kind or, of a training, "weights". The peer makes
it, writes what came out to RESULTS (numpy's .npz) and answers with a line of JSON: seconds of the
call, by the clock and of all cores, its peak memory, and what it runs on. Each call meets the
pictures of the case; or, with BATCHES, the next ones of that file (.npz): "image" [N, B, S, S, 3],
"mask" [N, B, S, S, 1].
"""

import argparse
import itertools
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Results = dict[str, np.ndarray]
Calls = Mapping[str, Callable[[], Results]]  # By their names.
Pictures = Iterator[tuple[np.ndarray, np.ndarray]]  # See `Case.pictures`.


class Case(NamedTuple):
    """What is timed: "forward-256-4" completes a batch of 4 pictures of 256 x 256 pixels."""

    kind: str
    size: int
    batch: int

    @classmethod
    def parse(cls, text: str, kinds: Sequence[str] = ("forward", "train")) -> "Case":
        """Reads "KIND-SIZE-BATCH", an argument of a command line, of one of the kinds."""
        found = re.fullmatch(rf"({'|'.join(kinds)})-(\d+)-(\d+)", text)
        case = cls(found[1], int(found[2]), int(found[3])) if found else None
        if not case or case.size % 8 or not case.size or not case.batch:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no case: write {' or '.join(kinds)}, then -SIZE-BATCH, with a size "
                "that is a multiple of 8."
            )
        return case

    def __str__(self) -> str:
        return "-".join(map(str, self))

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """The same to all peers: uint8 RGB [B, S, S, 3] and mask [B, S, S, 1], 1 in the hole."""
        sides = self.batch, self.size, self.size
        image = np.random.default_rng(0).integers(0, 256, (*sides, 3), dtype=np.uint8)
        mask = np.zeros((*sides, 1), np.uint8)
        # One hole for the whole batch, as nipponjo's attention sees the first example's alone.
        mask[:, self.size // 4 : self.size // 2, self.size // 4 : 3 * self.size // 4] = 1
        return image, mask


def read(batches: Path) -> Pictures:
    """The batches of a file, in its order."""
    with np.load(batches) as arrays:
        return zip(arrays["image"], arrays["mask"], strict=True)


def cores() -> int:
    """How many this process may use, which is how many threads JAX takes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def peak_gigabytes() -> float:
    """The process's largest resident size so far."""
    status = Path("/proc/self/status")
    if status.exists():  # On Linux `ru_maxrss` starts with what the parent has.
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def serve(make_calls: Callable[[Case, Path, Pictures], Calls], about: dict[str, Any]) -> None:
    """Answers until nobody asks any more.

    Args:
        make_calls: From a case, the file of weights and the pictures to the calls. "forward"
            returns "refined" and "completed", RGB [B, S, S, 3] in [-1, 1]; "train", after a step,
            the losses by the names of `train.step`; "weights" those of both networks by
            the peer's own names.
        about: Versions and threads.
    """
    case = Case.parse(sys.argv[1])
    weights, results, *batches = map(Path, sys.argv[2:])
    answers, sys.stdout = sys.stdout, sys.stderr  # Where libraries may print what they like.
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
