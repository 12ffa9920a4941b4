"""Times this project beside MMagic's DeepFillv2 (PyTorch), in turn, on this machine.

    pip install '.[train,convert]'
    python benchmarks/compare.py [--cases forward-256-1 train-256-2 ...] [--rounds 5] [--width 24]

MMagic gets a Python environment of its own, made at the first start. Both get the same drawn
weights and pictures, and must find the same, or nothing is timed: completed pictures, and the
losses of a training step and of the next, which sees what the first has changed. Each case has a
process per side, asked A B A B ...; the memory is the process's peak after its first call. Ours has
its program from the cache on disk, as all but the first start of a command; what that first start
takes is measured before, in a process of its own. Prints a line of JSON a case, and a table. With
`--nipponjo DIR`, a clone of nipponjo/deepfillv2-pytorch, the forward cases run beside its plain
generator too.
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
from deepfill_jax.convert import mmagic, nipponjo, torch_file
from deepfill_jax.errors import RunError, UsageError, run_command
from deepfill_jax.models import Variant, make_variant
from deepfill_jax.tensors import expected_tensors, flatten, subtree, unflatten

BENCHMARKS = Path(__file__).resolve().parent
CASES = ("forward-256-1", "forward-256-4", "forward-512-1", "forward-1024-1", "train-256-2")
# The last numpy that has what MMagic 1.2.0 uses, and what goes with it. MMagic's own requirements
# are left out but for what its DeepFillv2 imports.
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
GAIN = 2.2  # Of drawn kernels. With less, features die out; with more, rounding errors grow.
TOLERANCE = 1e-3


class Peer(NamedTuple):
    """One side of a comparison."""

    name: str
    command: Sequence[str]
    weights: Path
    paths: Sequence[Path] = ()  # More folders to import from.
    # Pixels a side that are too many: at 1024, MMagic's attention takes 21 GB.
    largest: int = 512


class Worker:
    """A peer's process for one case."""

    def __init__(self, peer: Peer, case: Case, results: Path, cache: Path, *batches: Path):
        """Starts it.

        Args:
            peer: The side.
            case: What it does.
            results: The file that it writes.
            cache: Where JAX keeps programs.
            batches: The file of its pictures; without, it meets the case's.
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
        """Makes one call, by default the case's, and returns the answer."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{name or self._case.kind}\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RunError(f"{self._peer.name} stopped in {self._case}; see above for why.")
        return json.loads(answer)

    def turn(self) -> float:
        """Makes two calls and returns the seconds of the second.

        The first finds caches and free memory as the other side left them, which a run of its own
        meets once. On a virtual machine that may cost seconds, as free memory goes back to its
        host.
        """
        self.call()
        return self.call()["seconds"]

    def result(self) -> Results:
        """What the last call found."""
        with np.load(self._results) as arrays:
            return dict(arrays)

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def compare(case: Case, ours: Peer, theirs: Peer, rounds: int) -> dict[str, Any]:
    """Measures a case; ours alone if it is too large for theirs.

    Raises:
        RunError: A side stopped, or they do not find the same.
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
    found = {"case": str(case), "rounds": rounds}
    for index, side in enumerate(("ours", "theirs")[: len(sides)]):
        found[side] = {**firsts[index], "seconds": spread([times[index] for times in seconds])}
    found["ours"]["compiling_gb"] = compiling
    if len(sides) == 2:
        found |= {"peer": theirs.name, "difference": difference}
        found["ratio"] = spread([a / b for a, b in seconds])
        found["memory_ratio"] = firsts[0]["gb"] / firsts[1]["gb"]
    return found


def largest_difference(case: Case, sides: Sequence[Peer], workers: Sequence[Worker]) -> float:
    """Of what the workers found last, relative where it is above 1.

    Raises:
        RunError: It is more than `TOLERANCE`.
    """
    found, wanted = workers[0].result(), workers[-1].result()
    differences = {
        name: float(np.max(np.abs(found.get(name, np.nan) - x) / np.maximum(np.abs(x), 1)))
        for name, x in wanted.items()
    }
    # Not `max`, which would not see a NaN.
    wrong = {name: x for name, x in differences.items() if not x <= TOLERANCE}
    if wrong:
        raise RunError(
            f"{' and '.join(side.name for side in sides)} do not find the same in {case}: "
            f"differences {wrong}, tolerance {TOLERANCE}; times of other work say nothing."
        )
    return max(differences.values())


def draw(variant: Variant) -> weights.Model:
    """A model with seeded weights."""
    random = np.random.default_rng(0)

    def drawn(shape):
        kernel = len(shape) == 4
        scale = GAIN / np.sqrt(np.prod(shape[:-1])) if kernel else 1 / np.sqrt(shape[0])
        return (scale * random.standard_normal(shape)).astype(np.float32)

    shapes = expected_tensors(variant, discriminator=True)
    tree = unflatten({name: drawn(shape) for name, shape in shapes.items()})
    return weights.Model(variant, tree["generator"], tree["discriminator"])


def write_nipponjo(path: Path, model: weights.Model) -> None:
    """Writes a generator as nipponjo's `Generator` loads it."""
    named = flatten(weights.networks(model))
    table = nipponjo.make_table(nipponjo.LAYERS, discriminator=False)
    tensors = {origin.name: origin.layout.to_theirs(named[name]) for name, origin in table.items()}
    tensors[nipponjo.CONSTANT] = np.eye(3, dtype=np.float32)[np.newaxis, np.newaxis]
    torch_file.save(path, {"G": subtree(tensors, "G.")})


def pair(
    model: weights.Model,
    folder: Path,
    write: Callable[[Path, weights.Model], None],
    python: Path,
    *paths: Path,
) -> tuple[Peer, Peer]:
    """Writes a model for both sides, and returns them."""
    name = model.variant.name
    ours, theirs = folder / f"{name}.safetensors", folder / f"{name}.pth"
    weights.save(ours, model)
    write(theirs, model)
    return (
        Peer("deepfill_jax", [sys.executable, "-m", "peers.ours"], ours),
        Peer(name, [str(python), "-m", f"peers.{name}"], theirs, paths),
    )


def mmagic_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what scripts take that run MMagic: the width of its generator, and where it is."""

    def width(text: str) -> int:
        if not text.isdecimal() or int(text) < 6 or int(text) % 6:
            raise argparse.ArgumentTypeError(
                f"{text} must be a positive multiple of 6, as MMagic's second decoder is a third "
                "wider."
            )
        return int(text)

    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "deepfill_jax/mmagic"
    parser.add_argument("--width", type=width, default=24, help="of the generator")
    parser.add_argument("--environment", type=lambda x: Path(x).absolute(), default=folder)


def make_environment(folder: Path) -> Path:
    """Makes MMagic's environment if it is not there, and returns its Python.

    Raises:
        RunError: Something could not be installed.
    """
    python, stamp = folder / "bin/python", folder / "requirements.txt"
    wanted = "\n".join((*REQUIREMENTS, MMAGIC_RELEASE, ""))
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"Making {folder} (PyTorch, MMagic) ...", file=sys.stderr, flush=True)
    pip = [python, "-m", "pip", "install", "--quiet"]
    commands = (
        [sys.executable, "-m", "venv", "--clear", folder],
        [*pip, *REQUIREMENTS],
        [*pip, "--no-deps", MMAGIC_RELEASE],
    )
    for command in commands:
        if subprocess.run(command).returncode:
            raise RunError(f"The environment {folder} could not be made; see above for why.")
    stamp.write_text(wanted)
    return python


def cpu() -> str:
    """The processor's name, as well as the system knows it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown; times and ratios are medians, with the smallest and largest."""

    def times(x, form):
        return f"{x['median']:{form}} ({x['min']:{form}}..{x['max']:{form}})" if x else "-"

    yield (
        "| case | beside | ours, s | theirs, s | ratio "
        "| ours, GB | theirs, GB | ratio | ours with compiling, GB |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in found:
        ours, theirs = one["ours"], one.get("theirs", {})
        cells = (
            one["case"],
            one.get("peer", "-"),
            times(ours["seconds"], ".3g"),
            times(theirs.get("seconds"), ".3g"),
            times(one.get("ratio"), ".2f"),
            f"{ours['gb']:.2f}",
            f"{theirs['gb']:.2f}" if theirs else "-",
            f"{one['memory_ratio']:.2f}" if theirs else "-",
            f"{ours['compiling_gb']:.2f}",
        )
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Compares what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=Case.parse, nargs="+", default=list(map(Case.parse, CASES)))
    parser.add_argument("--rounds", type=int, default=5)
    mmagic_arguments(parser)
    parser.add_argument("--nipponjo", type=Path, help="a clone of its repository")
    options = parser.parse_args()
    if options.rounds < 1:
        raise UsageError(f"--rounds={options.rounds} must be at least 1.")
    if options.nipponjo and not (options.nipponjo / "model/networks.py").is_file():
        raise UsageError(
            f"--nipponjo={options.nipponjo} is no clone of github.com/nipponjo/deepfillv2-pytorch: "
            "it has no model/networks.py."
        )
    python = make_environment(options.environment)
    machine = {"cpu": cpu(), "cores": os.cpu_count(), "width": options.width}
    print(json.dumps(machine), flush=True)
    found = []
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
                found.append(compare(case, ours, theirs, options.rounds))
                print(json.dumps(found[-1]), flush=True)
    print("\n".join(table(found)))


if __name__ == "__main__":
    run_command(main)
