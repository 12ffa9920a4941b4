"""Measures time and memory of this project's programs on this machine's CPU or GPU: `make bench`.

    python benchmarks/speed.py [--cases inference-256-1 ...] [--precisions float32 tf32 bfloat16]
        [--architecture mmagic] [--width 24] [--form cpu] [--rounds 5] [--output FILE]

A case is PROGRAM-SIZE-BATCH and runs in a separate process. The peak memory of the process includes
Python, JAX and the compiler; the memory that XLA plans for the program and the peak on a GPU are
listed too. Times are medians with minimum and maximum, without compilation, which is measured
separately. FLOPs are XLA's count; their rate is compared with that of a matrix product in the same
process. The script prints a line of JSON per case, and a table. If a case fails, usually for lack
of memory, its line has an "error", the other cases still run, and the exit code is 1.
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

from deepfill_jax import compiler

CASES = (
    *("inference-256-1", "inference-256-4", "inference-512-1", "inference-1024-1"),
    *("training-256-2", "attention-256-1", "attention-512-1", "attention-1024-1"),
)


def measure(case: Case, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compiles and times one case in this process."""
    with compiler.use_form(options.form):
        program = programs.make_program(case, options.architecture, options.width, precision)
    jax.block_until_ready(program.call())
    # The peak is read before the matrix product of `matmul_rate`, which takes memory too.
    memory = {"peak_gb": peak_gigabytes(), "program_gb": planned_bytes(program.compiled) / 1e9}
    if stats := jax.devices()[0].memory_stats():  # CPUs do not report any.
        memory["device_peak_gb"] = stats["peak_bytes_in_use"] / 1e9
    seconds = programs.time_calls(program.call, options.rounds)
    rate = program.flops / seconds["median"]
    return {
        "case": str(case),
        "precision": precision,
        "form": options.form or "by device",
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
    """Returns the memory that XLA plans for a program, including its arguments and results."""
    plan = compiled.memory_analysis()
    needed = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return needed - plan.alias_size_in_bytes


def measure_apart(case: Case, precision: str) -> dict[str, Any]:
    """Measures in a separate process; if that fails, returns its "error"."""
    # If an option is repeated, argparse uses the last one.
    command = [sys.executable, *sys.argv, "--here", "--cases", str(case), "--precisions", precision]
    # Without filtering, the last line of the output is the error message.
    environment = {**os.environ, "JAX_TRACEBACK_FILTERING": "off"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ran.returncode == 0:
        return json.loads(ran.stdout)
    print(ran.stderr, file=sys.stderr, end="")
    *_, last = ["", *ran.stderr.splitlines()]
    error = f"exit code {ran.returncode}: {last}"
    return {"case": str(case), "precision": precision, "error": error}


def main() -> None:
    """Runs the command."""
    parser = programs.case_arguments(__doc__, CASES)
    parser.add_argument("--architecture", default="mmagic")
    programs.add_form(parser)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(*options.cases, *options.precisions, options)))
        return
    results = []
    for precision in options.precisions:
        for case in options.cases:
            results.append(measure_apart(case, precision))
            programs.report(options.output, **results[-1])
    measured = [result for result in results if "error" not in result]
    print("| case | precision | s | compile, s | peak, GB | GFLOP | % of matmul rate |")
    print("|---|---|---|---|---|---|---|")
    for result in measured:
        cells = (
            result["case"],
            result["precision"],
            programs.median_and_range(result["seconds"], ".3g"),
            f"{result['compile_seconds']:.1f}",
            f"{result.get('device_peak_gb', result['peak_gb']):.2f}",
            f"{result['gflop']:.0f}",
            f"{result['of_matmul_rate']:.0%}",
        )
        print(f"| {' | '.join(cells)} |")
    sys.exit(len(measured) < len(results))


if __name__ == "__main__":
    main()
