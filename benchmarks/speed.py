"""Times this project's programs on this machine: `make bench`.

    python benchmarks/speed.py [--cases inference-256-1 ...] [--architecture mmagic] [--rounds 5]

A case is PROGRAM-SIZE-BATCH and has a process of its own, whose peak of memory is Python's, JAX's
and the compiler's too. Times are medians, with the smallest and the largest; compiling is apart.
FLOPs are XLA's count; their rate is compared with a matrix product's in the same process. Prints a
line of JSON a case, and a table.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

CASES = (
    *("inference-256-1", "inference-256-4", "inference-512-1", "inference-1024-1"),
    *("training-256-2", "attention-256-1", "attention-512-1", "attention-1024-1"),
)
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # Bytes of `ru_maxrss`.


def measure(case: str, architecture: str, width: int, rounds: int) -> dict:
    """Compiles and times one case in this process."""
    import jax
    from programs import PROGRAMS, matmul_rate

    name, size, batch = case.split("-")
    program = PROGRAMS[name](architecture, int(size), int(batch), width)
    program.call()
    # Before the product of matrices, which takes memory too.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        program.call()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return {
        "case": case,
        "architecture": architecture,
        "width": width,
        "seconds": {"median": median, "min": min(seconds), "max": max(seconds)},
        "compile_seconds": program.compile_seconds,
        "peak_gb": peak / 1e9,
        "gflop": program.flops / 1e9,
        "of_matmul_rate": program.flops / median / matmul_rate(),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def main() -> None:
    """Measures the cases that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="PROGRAM-SIZE-BATCH")
    parser.add_argument("--architecture", default="mmagic")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        case = measure(*options.cases, options.architecture, options.width, options.rounds)
        print(json.dumps(case))
        return
    same = ["--architecture", options.architecture]
    same += ["--width", str(options.width), "--rounds", str(options.rounds)]
    found = []
    for case in options.cases:
        command = [sys.executable, __file__, "--here", "--cases", case, *same]
        line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(line))
        print(line, end="", flush=True)
    print("| case | s | compile, s | peak, GB | GFLOP | of a matrix product's rate |")
    print("|---|---|---|---|---|---|")
    for one in found:
        seconds = one["seconds"]
        cells = (
            one["case"],
            f"{seconds['median']:.3g} ({seconds['min']:.3g}..{seconds['max']:.3g})",
            f"{one['compile_seconds']:.1f}",
            f"{one['peak_gb']:.2f}",
            f"{one['gflop']:.0f}",
            f"{one['of_matmul_rate']:.0%}",
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
