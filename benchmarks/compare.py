"""Compares speed and memory with MMagic's DeepFillv2 (PyTorch) on this machine.

    pip install '.[train,convert]'
    python benchmarks/compare.py [--cases forward-256-1 train-256-2 ...] [--rounds 5] [--width 24]

MMagic is installed into a separate Python environment on the first start. Both sides get the same
random weights and images. They must compute the same completed images, and the same losses in two
successive training steps, of which the second sees the updates of the first; otherwise nothing is
timed. Each case has one process per side, and the sides alternate: A B A B ... The memory is the
process's peak after its first call. Our program comes from the compilation cache on disk, as in
every start of a command but the first; the peak memory of that first start is measured separately.
The script prints a line of JSON per case, and a table. With `--nipponjo DIR`, a clone of
nipponjo/deepfillv2-pytorch, the forward cases are compared with its generator too.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers.protocol import Case, Results
from programs import spread

from deepfill_jax import weights
from deepfill_jax.convert import mmagic, nipponjo, torch_writer
from deepfill_jax.errors import RunError, UsageError, run_command
from deepfill_jax.models import Variant, make_variant
from deepfill_jax.tensors import expected_tensors, flatten, subtree, unflatten

BENCHMARKS = Path(__file__).resolve().parent
CASES = ("forward-256-1", "forward-256-4", "forward-512-1", "forward-1024-1", "train-256-2")
# MMagic 1.2.0 needs numpy 1.26 and packages that work with it. Of MMagic's own requirements, only
# those that its DeepFillv2 imports are installed.
REQUIREMENTS = (
    "torch==2.13.0",
    "numpy==1.26.4",
    "opencv-python==4.11.0.86",
    "mmengine==0.10.7",
    "mmcv-lite==2.1.0",
    "click",
    "requests",
)
MMAGIC_RELEASE = "mmagic==1.2.0"
GAIN = 2.2  # Gain of random kernels. Less makes features vanish, more amplifies rounding errors.
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


def draw(variant: Variant) -> weights.Model:
    """Returns a model with random weights from a fixed seed."""
    rng = np.random.default_rng(0)

    def random_tensor(shape):
        kernel = len(shape) == 4
        scale = GAIN / np.sqrt(np.prod(shape[:-1])) if kernel else 1 / np.sqrt(shape[0])
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    shapes = expected_tensors(variant, discriminator=True)
    tree = unflatten({name: random_tensor(shape) for name, shape in shapes.items()})
    return weights.Model(variant, tree["generator"], tree["discriminator"])


def write_nipponjo(path: Path, model: weights.Model) -> None:
    """Writes a generator in the format that nipponjo's `Generator` loads."""
    named = flatten(weights.networks(model))
    table = nipponjo.make_table(nipponjo.LAYERS, discriminator=False)
    tensors = {origin.name: origin.layout.to_theirs(named[name]) for name, origin in table.items()}
    tensors[nipponjo.CONSTANT] = np.eye(3, dtype=np.float32)[np.newaxis, np.newaxis]
    torch_writer.save(path, {"G": subtree(tensors, "G.")})


def pair(
    model: weights.Model,
    folder: Path,
    write: Callable[[Path, weights.Model], None],
    python: Path,
    *paths: Path,
) -> tuple[Peer, Peer]:
    """Writes a model in the formats of both sides, and returns the two peers."""
    name = model.variant.name
    ours, theirs = folder / f"{name}.safetensors", folder / f"{name}.pth"
    weights.save(ours, model)
    write(theirs, model)
    return (
        Peer("deepfill_jax", [sys.executable, "-m", "peers.ours"], ours),
        Peer(name, [str(python), "-m", f"peers.{name}"], theirs, paths),
    )


def mmagic_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of scripts that run MMagic: generator width and environment folder."""

    def width(text: str) -> int:
        if not text.isdecimal() or int(text) < 6 or int(text) % 6:
            raise argparse.ArgumentTypeError(
                f"{text} must be a positive multiple of 6, as MMagic's second decoder is a third "
                "wider."
            )
        return int(text)

    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "deepfill_jax/mmagic"
    parser.add_argument("--width", type=width, default=24, help="generator width in channels")
    parser.add_argument("--environment", type=lambda x: Path(x).absolute(), default=folder)


def make_environment(folder: Path) -> Path:
    """Creates MMagic's environment if it does not exist, and returns its Python.

    Raises:
        RunError: A package could not be installed.
    """
    python, stamp = folder / "bin/python", folder / "requirements.txt"
    requirements = "\n".join((*REQUIREMENTS, MMAGIC_RELEASE, ""))
    if stamp.is_file() and stamp.read_text() == requirements:
        return python
    print(f"Creating {folder} (PyTorch, MMagic) ...", file=sys.stderr, flush=True)
    pip = [python, "-m", "pip", "install", "--quiet"]
    commands = (
        [sys.executable, "-m", "venv", "--clear", folder],
        [*pip, *REQUIREMENTS],
        [*pip, "--no-deps", MMAGIC_RELEASE],
    )
    for command in commands:
        if subprocess.run(command).returncode:
            raise RunError(f"The environment {folder} could not be created; see pip's error above.")
    stamp.write_text(requirements)
    return python


def cpu() -> str:
    """Returns the processor's name as reported by the system."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields lines of Markdown; times and ratios are medians, with minimum and maximum."""

    def times(x, form):
        return f"{x['median']:{form}} ({x['min']:{form}}..{x['max']:{form}})" if x else "-"

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


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=Case.parse, nargs="+", default=list(map(Case.parse, CASES)))
    parser.add_argument("--rounds", type=int, default=5)
    mmagic_arguments(parser)
    parser.add_argument("--nipponjo", type=Path, help="a clone of nipponjo/deepfillv2-pytorch")
    options = parser.parse_args()
    if options.rounds < 1:
        raise UsageError(f"--rounds={options.rounds} must be at least 1.")
    if options.nipponjo and not (options.nipponjo / "model/networks.py").is_file():
        raise UsageError(
            f"--nipponjo={options.nipponjo} has no file model/networks.py; give the path of a "
            "clone of github.com/nipponjo/deepfillv2-pytorch."
        )
    python = make_environment(options.environment)
    machine = {"cpu": cpu(), "cores": os.cpu_count(), "width": options.width}
    print(json.dumps(machine), flush=True)
    results = []
    with tempfile.TemporaryDirectory() as name:
        variant = make_variant("mmagic", width=options.width)
        comparisons = [(pair(draw(variant), Path(name), mmagic.write, python), options.cases)]
        if options.nipponjo:
            variant = make_variant("nipponjo", width=options.width)
            clone = options.nipponjo.absolute()
            sides = pair(draw(variant), Path(name), write_nipponjo, python, clone)
            both = (c for c in options.cases if c.kind == "forward" and c.size <= sides[1].largest)
            comparisons.append((sides, both))
        for (ours, theirs), cases in comparisons:
            for case in cases:
                results.append(compare(case, ours, theirs, options.rounds))
                print(json.dumps(results[-1]), flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    run_command(main)
