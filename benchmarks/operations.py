"""Where the time of inference and of a training step goes, by kind of operation and by operation.

    python benchmarks/operations.py [--program training] [--size 256] [--batch 2] [--top 20]

Prints Markdown tables. XLA runs operations side by side where it can; a moment is then shared
equally among them, so that times add up to the whole. FLOPs are what the operation's shapes ask
for; a rate beside this machine's own for a matrix product says how much is left to gain.
"""

import argparse
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.profiler import ProfileData
from programs import PROGRAMS, matmul_rate

RUNS = 3
CONTAINERS = {"while", "call", "conditional"}  # Their time is that of what is in them.
INSTRUCTION = re.compile(r"^ *(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
SHAPE = re.compile(r"\w+\[([\d,]*)\]")


class Operation(NamedTuple):
    """An instruction of the compiled program."""

    kind: str  # The row of the first table that it belongs to.
    source: str  # Where it comes from.
    shape: str  # Of what it makes.
    flops: float  # Of one run.


def instructions(hlo: str) -> dict[str, Operation]:
    """Every instruction of a compiled program's text, by name."""
    shapes, found, fused = {}, {}, {}  # The last: the product of matrices inside a fusion.
    for line in hlo.splitlines():
        if line.startswith("%"):
            computation = line[1:].split(" ")[0]
        if not (match := INSTRUCTION.match(line)):
            continue
        name, shape, opcode, rest = match.groups()
        shapes[name] = sides(shape)
        source = re.search(r'op_name="([^"]*)"', rest)
        source = source.group(1) if source else ""
        operands = [shapes.get(operand, ()) for operand in re.findall(r"%([\w.-]+)", rest)]
        flops = count_flops(opcode, shapes[name], operands, rest)
        if opcode in CONTAINERS:
            continue
        if opcode == "dot":
            fused[computation] = flops
        called = re.search(r"calls=%([\w.-]+)", rest)
        if called and called.group(1) in fused:
            opcode, flops = "dot", fused[called.group(1)]
        found[name] = Operation(kind_of(opcode, source, rest), source, shape.split("{")[0], flops)
    return found


def sides(shape: str) -> tuple[int, ...]:
    """f32[2,3]{1,0} -> (2, 3)."""
    match = SHAPE.match(shape)
    return tuple(int(side) for side in match.group(1).split(",") if side) if match else ()


def count_flops(opcode: str, shape: tuple[int, ...], operands: list, rest: str) -> float:
    """Multiplications and additions of a convolution or matrix product; 0 of all else."""
    if opcode == "convolution":
        kernel_labels = re.search(r"dim_labels=\w+_(\w+)->", rest).group(1)
        window = np.prod(operands[1]) / operands[1][kernel_labels.index("o")]
        # Zeros between the pixels of a strided convolution's gradient are not asked for.
        dilated = re.search(r"lhs_dilate=(\d+)x(\d+)", rest)
        zeros = int(dilated.group(1)) * int(dilated.group(2)) if dilated else 1
        return 2.0 * np.prod(shape) * window / zeros
    if opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest).group(1)
        depth = np.prod([operands[0][int(axis)] for axis in contracted.split(",") if axis])
        return 2.0 * np.prod(shape) * depth
    return 0.0


def kind_of(opcode: str, source: str, rest: str) -> str:
    """The row of the first table that an instruction belongs to."""
    backward = "transpose(" in source
    if opcode == "convolution":
        if not backward:
            return "convolution"
        # The gradient by the weights is the one that sums over the batch.
        labels = re.search(r"dim_labels=(\w+)_", rest).group(1)
        return "convolution, d weights" if labels.index("f") == 0 else "convolution, d input"
    if opcode in ("dot", "custom-call"):
        return "matrix product" + (", backward" if backward else "")
    return "the rest" + (", backward" if backward else "")


def times(folder: str, known: dict[str, Operation]) -> tuple[Counter, Counter]:
    """Seconds and runs of each known instruction in a recorded profile.

    Where several ran at once, each has its share of the time.
    """
    changes = []
    for path in Path(folder).rglob("*.xplane.pb"):
        for plane in ProfileData.from_file(f"{path}").planes:
            changes += [change for change in changes_of(plane) if change[1] in known]
    seconds, running, before = Counter(), Counter(), 0.0
    for now, name, change in sorted(changes):
        for other in running:
            seconds[other] += (now - before) / len(running) / 1e9
        running[name] += change
        running += Counter()  # Drops zeros.
        before = now
    return seconds, Counter(name for _, name, change in changes if change > 0)


def changes_of(plane) -> list[tuple[float, str, int]]:
    """(time, instruction, +1 or -1) where one begins or ends, on any thread."""
    begun, ended = {}, {}
    for line in plane.lines:
        for event in line.events:
            stats = dict(event.stats)
            if "hlo_op" in stats:
                begun[stats["_p"]] = event.start_ns, event.end_ns, stats["hlo_op"]
            elif event.name.startswith("end: "):
                ended[stats["_c"]] = event.end_ns
    changes = []
    for key, (start, end, name) in begun.items():
        # An operation that is spread over threads returns at once, and ends later.
        changes += [(start, name, 1), (max(end, ended.get(key, end)), name, -1)]
    return changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--program", choices=PROGRAMS, default="inference")
    parser.add_argument("--architecture", default="mmagic")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--top", type=int, default=20)
    options = parser.parse_args()
    make = PROGRAMS[options.program]
    program = make(options.architecture, options.size, options.batch, options.width)
    program.call()
    known = instructions(program.compiled.as_text())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(RUNS):
                program.call()
        seconds, runs = times(folder, known)
    seconds = Counter({name: value / RUNS for name, value in seconds.items()})
    flops = {name: known[name].flops * runs[name] / RUNS for name in seconds}
    by_kind, flops_by_kind = Counter(), Counter()
    for name, value in seconds.items():
        by_kind[known[name].kind] += value
        flops_by_kind[known[name].kind] += flops[name]
    total, peak = sum(seconds.values()), matmul_rate()

    def rate(flops: float, seconds: float) -> str:
        return f"{flops / seconds / peak:.0%}" if flops else ""

    print(
        f"{options.program}, {options.architecture}, {options.size} px, batch {options.batch}: "
        f"{total:.3f} s; a matrix product runs at {peak / 1e9:.0f} GFLOP/s.\n"
    )
    print("| kind | ms | share | GFLOP | of that rate |\n|---|---|---|---|---|")
    for kind, value in by_kind.most_common():
        done = flops_by_kind[kind]
        columns = f"{1e3 * value:.1f}", f"{value / total:.0%}", f"{done / 1e9:.1f}"
        print(f"| {kind} | {' | '.join(columns)} | {rate(done, value)} |")
    print("\n| ms | operation | makes | of that rate | from |\n|---|---|---|---|---|")
    for name, value in seconds.most_common(options.top):
        one = known[name]
        source = re.sub(r"jit\(\w+\)/", "", one.source)
        columns = f"{1e3 * value:.1f}", one.kind, one.shape, rate(flops[name], value), source
        print(f"| {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
