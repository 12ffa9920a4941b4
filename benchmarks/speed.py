"""Times this project's programs on this machine, CPU or GPU: `make bench`.

    python benchmarks/speed.py [--cases inference-256-1 ...] [--precisions float32 tf32 bfloat16]
        [--architecture mmagic] [--width 24] [--rounds 5] [--output FILE]

A case is PROGRAM-SIZE-BATCH and has a process of its own, whose peak of memory is Python's, JAX's
and the compiler's too; beside it stands what XLA plans for the program, and a GPU's own peak. Times
are medians, with the smallest and the largest; compiling is apart. FLOPs are XLA's count; their
rate is compared with a matrix product's in the same process. Prints a line of JSON a case, and a
table. A case that fails, mostly for want of memory, has an "error" in its line and stops no other;
the exit code is then 1.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import jax
import programs
from peers.protocol import Case, peak_gigabytes

CASES = (
    *("inference-256-1", "inference-256-4", "inference-512-1", "inference-1024-1"),
    *("training-256-2", "attention-256-1", "attention-512-1", "attention-1024-1"),
)


def measure(case: Case, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compiles and times one case in this process."""
    program = programs.make_program(case, options.architecture, options.width, precision)
    jax.block_until_ready(program.call())
    # Before the product of matrices, which takes memory too.
    memory = {"peak_gb": peak_gigabytes(), "program_gb": planned_bytes(program.compiled) / 1e9}
    if stats := jax.devices()[0].memory_stats():  # A CPU has none.
        memory["device_peak_gb"] = stats["peak_bytes_in_use"] / 1e9
    seconds = programs.time_calls(program.call, options.rounds)
    rate = program.flops / seconds["median"]
    return {
        "case": str(case),
        "precision": precision,
        "architecture": options.architecture,
        "width": options.width,
        "seconds": seconds,
        "images_per_second": case.batch / seconds["median"],
        "compile_seconds": program.compile_seconds,
        **memory,
        "gflop": program.flops / 1e9,
        "of_matmul_rate": rate / programs.matmul_rate(precision),
        **programs.machine(),
    }


def planned_bytes(compiled: jax.stages.Compiled) -> int:
    """The memory that XLA plans for a program, its arguments and results included."""
    plan = compiled.memory_analysis()
    needed = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return needed - plan.alias_size_in_bytes


def measure_apart(case: Case, precision: str) -> dict[str, Any]:
    """Measures in a process of its own; if that fails, returns its "error"."""
    # Of an option that is given twice, the last counts.
    command = [sys.executable, *sys.argv, "--here", "--cases", str(case), "--precisions", precision]
    # Nothing follows the error's own words.
    environment = {**os.environ, "JAX_TRACEBACK_FILTERING": "off"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ran.returncode == 0:
        return json.loads(ran.stdout)
    print(ran.stderr, file=sys.stderr, end="")
    *_, last = ["", *ran.stderr.splitlines()]
    error = f"exit code {ran.returncode}: {last}"
    return {"case": str(case), "precision": precision, "error": error}


def main() -> None:
    """Measures the cases that the command line names."""
    parser = programs.case_arguments(__doc__, CASES)
    parser.add_argument("--architecture", default="mmagic")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(*options.cases, *options.precisions, options)))
        return
    found = []
    for precision in options.precisions:
        for case in options.cases:
            found.append(measure_apart(case, precision))
            programs.report(options.output, **found[-1])
    measured = [one for one in found if "error" not in one]
    print("| case | precision | s | compile, s | peak, GB | GFLOP | of a matrix product's rate |")
    print("|---|---|---|---|---|---|---|")
    for one in measured:
        seconds = one["seconds"]
        cells = (
            one["case"],
            one["precision"],
            f"{seconds['median']:.3g} ({seconds['min']:.3g}..{seconds['max']:.3g})",
            f"{one['compile_seconds']:.1f}",
            f"{one.get('device_peak_gb', one['peak_gb']):.2f}",
            f"{one['gflop']:.0f}",
            f"{one['of_matmul_rate']:.0%}",
        )
        print(f"| {' | '.join(cells)} |")
    sys.exit(len(measured) < len(found))


if __name__ == "__main__":
    main()
