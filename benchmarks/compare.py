"""Compares speed and memory with other implementations and programs on this machine.

    pip install '.[train,export]' openvino
    python benchmarks/compare.py [--peers mmagic onnxruntime ...] [--cases forward-256-1 ...]

The peers are MMagic's DeepFillv2 (PyTorch), run eagerly (`mmagic`) or with `torch.compile`
(`mmagic_compiled`); ONNX Runtime and OpenVINO with our ONNX file (`onnxruntime`, `openvino`); and
nipponjo/deepfillv2-pytorch (`nipponjo`), of which `--nipponjo DIR` is a clone. MMagic is installed
into a separate Python environment on the first start.

Both sides get the same random weights and images. They must compute the same completed images, and
the same losses in two successive training steps, of which the second sees the updates of the first;
otherwise nothing is timed. Each case has one process per side, and the sides alternate: A B A B ...
The memory is the process's peak after its first call. Our program comes from the compilation cache
on disk, as in every start of a command but the first; the peak memory of that first start is
measured separately. The script prints a line of JSON per case, and a table.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peers import mmagic_environment, model_files
from peers.protocol import Case, cpu
from peers.worker import Peer, Worker, largest_difference
from programs import median_and_range, spread

from deepfill_jax.convert import mmagic
from deepfill_jax.errors import UsageError, run_command
from deepfill_jax.export import onnx
from deepfill_jax.models import make_variant

PEERS = ("mmagic", "mmagic_compiled", "onnxruntime", "openvino", "nipponjo")
TRAINERS = ("mmagic", "mmagic_compiled")  # Peers that can train.
CASES = ("forward-256-1", "forward-256-4", "forward-512-1", "forward-1024-1", "train-256-2")


def compare(case: Case, ours: Peer, theirs: Peer, rounds: int) -> dict[str, Any]:
    """Measures a case on both sides, or only on ours if it is too large for the peer.

    Raises:
        RunError: A process ended, or the sides' results differ.
    """
    sides = [ours] if case.size > theirs.largest else [ours, theirs]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        cache = Path(folder, "cache")
        with contextlib.closing(Worker(ours, case, Path(folder, "first.npz"), cache)) as first:
            compiling = first.call()["gb"]
        workers = []
        for index, side in enumerate(sides):
            workers.append(Worker(side, case, Path(folder, f"{index}.npz"), cache))
            stack.callback(workers[-1].close)
        firsts = [worker.call() for worker in workers]
        difference = largest_difference(case, sides, workers)
        for worker in workers:
            worker.call()
        difference = max(difference, largest_difference(case, sides, workers))
        seconds = [[worker.turn() for worker in workers] for _ in range(rounds)]
    result = {"case": str(case), "rounds": rounds}
    for index, side in enumerate(("ours", "theirs")[: len(sides)]):
        result[side] = {**firsts[index], "seconds": spread([times[index] for times in seconds])}
    result["ours"]["compiling_gb"] = compiling
    if len(sides) == 2:
        result |= {"peer": theirs.name, "difference": difference}
        result["ratio"] = spread([a / b for a, b in seconds])
        result["memory_ratio"] = firsts[0]["gb"] / firsts[1]["gb"]
    return result


def table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields lines of Markdown; times and ratios are medians, with minimum and maximum."""

    def times(x, form):
        return median_and_range(x, form) if x else "-"

    yield (
        "| case | compared with | ours, s | theirs, s | ratio "
        "| ours, GB | theirs, GB | ratio | ours with compilation, GB |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for result in results:
        ours, theirs = result["ours"], result.get("theirs", {})
        cells = (
            result["case"],
            result.get("peer", "-"),
            times(ours["seconds"], ".3g"),
            times(theirs.get("seconds"), ".3g"),
            times(result.get("ratio"), ".2f"),
            f"{ours['gb']:.2f}",
            f"{theirs['gb']:.2f}" if theirs else "-",
            f"{result['memory_ratio']:.2f}" if theirs else "-",
            f"{ours['compiling_gb']:.2f}",
        )
        yield f"| {' | '.join(cells)} |"


def make_sides(peer: str, folder: Path, options: argparse.Namespace) -> tuple[Peer, Peer]:
    """Writes the files of both sides for a peer of `PEERS`."""
    variant = make_variant("nipponjo" if peer == "nipponjo" else "mmagic", width=options.width)
    model = model_files.random_model(variant)
    if peer in ("onnxruntime", "openvino"):
        python, write, paths, suffix = Path(sys.executable), onnx.save, (), ".onnx"
    else:
        python = mmagic_environment.make_environment(options.environment)
        write, paths, suffix = mmagic.write, (), ".pth"
        if peer == "nipponjo":
            write, paths = model_files.write_nipponjo, (options.nipponjo.absolute(),)
    return model_files.write_both(model, folder, write, python, *paths, peer=peer, suffix=suffix)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=Case.parse, nargs="+", default=list(map(Case.parse, CASES)))
    parser.add_argument("--peers", choices=PEERS, nargs="+", default=["mmagic"])
    parser.add_argument("--rounds", type=int, default=5)
    mmagic_environment.add_arguments(parser)
    parser.add_argument("--nipponjo", type=Path, help="a clone of nipponjo/deepfillv2-pytorch")
    options = parser.parse_args()
    if options.rounds < 1:
        raise UsageError(f"--rounds={options.rounds} must be at least 1.")
    if "nipponjo" in options.peers:
        if not options.nipponjo or not (options.nipponjo / "model/networks.py").is_file():
            raise UsageError(
                f"--nipponjo={options.nipponjo} has no file model/networks.py; give the path of a "
                "clone of github.com/nipponjo/deepfillv2-pytorch."
            )
    machine = {"cpu": cpu(), "cores": os.cpu_count(), "width": options.width}
    print(json.dumps(machine), flush=True)
    results = []
    with tempfile.TemporaryDirectory() as name:
        for peer in options.peers:
            ours, theirs = make_sides(peer, Path(name), options)
            for case in options.cases:
                if case.kind == "forward" or peer in TRAINERS:
                    results.append(compare(case, ours, theirs, options.rounds))
                    print(json.dumps(results[-1]), flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    run_command(main)
