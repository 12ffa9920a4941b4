"""Measures the cost of dividing a training step between devices and processes of one machine.

    python benchmarks/processes.py [--divisions 1x1 1x2 2x1] [--case training-256-2] [--rounds 3]

A division is PROCESSESxDEVICES. Each device gets its share of the batch, and all run on the same
cores, as with launch/processes.sh. The divisions are timed alternately. The script prints JSON
lines: the seconds of a step, their ratio to the first division, and the collectives of a step.
"""

import argparse
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import programs
from peers.protocol import Case

from deepfill_jax import compile_cache, distributed

STEPS = 3  # Number of timed steps in each round.
BYTES = {"f32": 4, "bf16": 2}


class Division(NamedTuple):
    """A number of processes, and a number of devices per process."""

    processes: int
    devices: int

    @classmethod
    def parse(cls, text: str) -> "Division":
        """Reads "PROCESSESxDEVICES"."""
        return cls(*map(int, text.split("x")))

    def __str__(self) -> str:
        return f"{self.processes}x{self.devices}"


def measure(division: Division, case: Case, options: argparse.Namespace) -> dict:
    """Starts the processes and returns the measurements of process 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    with contextlib.ExitStack() as stack:
        results = stack.enter_context(tempfile.NamedTemporaryFile("r"))
        processes = []
        for index in range(division.processes):
            command = [sys.executable, __file__, "--case", str(case), "--width", str(options.width)]
            command += ["--here", results.name]
            if division.processes > 1:
                command += ["--join", coordinator, str(division.processes), str(index)]
            environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(division.devices)}
            processes.append(stack.enter_context(subprocess.Popen(command, env=environment)))
        if any([process.wait() for process in processes]):
            raise SystemExit(f"Division {division} failed.")
        return json.load(results)


def measure_here(case: Case, options: argparse.Namespace) -> None:
    """Times the step in this process, which is one of those of `options.join`."""
    if options.join:
        coordinator, *numbers = options.join
        distributed.join(coordinator, *map(int, numbers))
        distributed.assert_same_on_all_processes("The case", str(case))
    compile_cache.enable()
    program = programs.make_program(case, "mmagic", options.width, "float32")
    seconds = []
    for _ in range(1 + STEPS):  # The same number in each process, as they wait for one another.
        start = time.perf_counter()
        jax.block_until_ready(program.call())
        seconds.append(time.perf_counter() - start)
    result = {"seconds": statistics.median(seconds[1:])}
    result["exchanges"] = exchanges(program.compiled.as_text())
    if jax.process_index() == 0:
        Path(options.here).write_text(json.dumps(result))


def exchanges(program: str) -> list[str]:
    """Lists the collectives of a compiled program, with their sizes."""
    collectives = re.findall(
        r"= (.*) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)\(", program
    )
    return [f"{name} {megabytes(shapes):.3g} MB" for shapes, name in collectives]


def megabytes(shapes: str) -> float:
    """Returns the total size of the arrays in a text like `(f32[4,50]{1,0}, f32[]{})`."""
    total = 0
    for dtype, sides in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
        count = 1
        for side in filter(None, sides.split(",")):
            count *= int(side)
        total += count * BYTES[dtype]
    return total / 1e6


def main() -> None:
    """Runs the command."""
    parser = programs.arguments(__doc__)
    divisions = [Division(1, 1), Division(1, 2), Division(2, 1)]
    parser.add_argument("--divisions", type=Division.parse, nargs="+", default=divisions)
    parser.add_argument("--case", type=programs.parse_case, default="training-256-2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--join", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return measure_here(options.case, options)
    rounds = [
        [measure(division, options.case, options) for division in options.divisions]
        for _ in range(options.rounds)
    ]
    first, *_ = zip(*rounds, strict=True)
    for division, *results in zip(options.divisions, *rounds, strict=True):
        pairs = zip(results, first, strict=True)
        ratios = [result["seconds"] / base["seconds"] for result, base in pairs]
        programs.report(
            options.output,
            division=str(division),
            case=str(options.case),
            seconds=statistics.median(result["seconds"] for result in results),
            ratio=programs.spread(ratios),
            exchanges=results[0]["exchanges"],
        )


if __name__ == "__main__":
    main()
