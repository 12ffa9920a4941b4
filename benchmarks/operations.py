"""Profiles a program: time by kind of operation, by part of the networks, and by operation.

    python benchmarks/operations.py [--case training-256-2] [--precision float32] [--top 20]
        [--output FILE] [--trace FOLDER]

The script prints a line of JSON and Markdown tables. Time during which several operations run in
parallel is divided equally among them, so that the times add up to the total. FLOPs are computed
from the shapes of operations; on a GPU, those of cuDNN and cuBLAS calls are unknown. The rate is
relative to that of a matrix product on this machine. FOLDER receives the profile itself, for
TensorBoard or Perfetto.
"""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import programs
from jax.profiler import ProfileData

RUNS = 3
# CUDA graphs are disabled, because their kernels have no names.
OPTIONS = {"xla_gpu_graph_min_graph_size": 10**6}
CONTAINERS = {"while", "call", "conditional"}  # Their time is that of the operations inside.
INSTRUCTION = re.compile(r"^ *(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
SHAPE = re.compile(r"\w+\[([\d,]*)\]")
PART = re.compile(r"(Generator|Discriminator)\W*/(?:refine/)?(coarse|decoder|\w+_branch|patch\d)")


class Operation(NamedTuple):
    """An instruction of the compiled program."""

    kind: str  # Its row in the first table.
    source: str = ""  # The JAX operation that it comes from.
    shape: str = ""  # Shape of its output.
    flops: float = 0.0  # FLOPs of one execution.

    @property
    def part(self) -> str:
        """Its row in the second table, such as "Generator/coarse, backward"."""
        match = PART.search(self.source)
        return "/".join(match.groups()) + backward(self.source) if match else "the rest"


Measured = tuple[Operation, float, float]  # An operation with its seconds and FLOPs per run.
UNKNOWN = Operation("not in the program's text")


def instructions(hlo: str) -> dict[str, Operation | None]:
    """Parses the instructions of a compiled program's text, by name; None for containers."""
    shapes, operations = {}, {}
    fused = {}  # Opcode and FLOPs of the convolution or product in each fused computation.
    for line in hlo.splitlines():
        if heading := re.match(r"(?:ENTRY )?%([\w.-]+) ", line):
            computation = heading[1]
        if not (match := INSTRUCTION.match(line)):
            continue
        name, shape, opcode, rest = match.groups()
        shapes[name] = sides(shape)
        source = re.search(r'op_name="([^"]*)"', rest)
        source = source[1] if source else ""
        operands = [shapes.get(operand, ()) for operand in re.findall(r"%([\w.-]+)", rest)]
        called = re.search(r"calls=%([\w.-]+)", rest)
        flops = count_flops(opcode, shapes[name], operands, rest)
        if called and called[1] in fused:
            opcode, flops = fused[called[1]]
        if opcode in ("convolution", "dot"):
            fused[computation] = opcode, flops
        kind = kind_of(opcode, rest) + backward(source)
        operation = Operation(kind, source, shape.split("{")[0], flops)
        operations[name] = None if opcode in CONTAINERS else operation
    return operations


def sides(shape: str) -> tuple[int, ...]:
    """Parses a shape: f32[2,3]{1,0} becomes (2, 3)."""
    match = SHAPE.match(shape)
    return tuple(int(side) for side in match.group(1).split(",") if side) if match else ()


def count_flops(opcode: str, shape: tuple[int, ...], operands: list, rest: str) -> float:
    """Returns the FLOPs of a convolution or matrix product; 0 for other operations."""
    if opcode == "convolution":
        kernel_labels = re.search(r"dim_labels=\w+_(\w+)->", rest).group(1)
        window = np.prod(operands[1]) / operands[1][kernel_labels.index("o")]
        # The zeros between the pixels of a strided convolution's gradient are not counted.
        dilated = re.search(r"lhs_dilate=(\d+)x(\d+)", rest)
        zeros = int(dilated.group(1)) * int(dilated.group(2)) if dilated else 1
        return 2.0 * np.prod(shape) * window / zeros
    if opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest).group(1)
        depth = np.prod([operands[0][int(axis)] for axis in contracted.split(",") if axis])
        return 2.0 * np.prod(shape) * depth
    return 0.0


def kind_of(opcode: str, rest: str) -> str:
    """Returns the row of an instruction in the first table."""
    if opcode == "convolution" or "__cudnn$conv" in rest:
        return "convolution"
    return "matrix product" if opcode in ("dot", "custom-call") else "the rest"


def backward(source: str) -> str:
    """Returns the suffix of row names for gradient operations, or ""."""
    return ", backward" if "transpose(" in source else ""


def profile(folder: Path, known: dict[str, Operation | None]) -> list[Measured]:
    """Returns the operations of the newest profile in a folder, the longest first.

    Time during which several operations ran in parallel is divided equally among them.
    """
    newest = max(folder.rglob("*.xplane.pb"))
    changes = []
    for start, end, name in spans(list(ProfileData.from_file(f"{newest}").planes)):
        if known.get(name, UNKNOWN):
            changes += [(start, name, 1), (end, name, -1)]
    seconds, running, before = Counter(), Counter(), 0.0
    for now, name, change in sorted(changes):
        for other in running:
            seconds[other] += (now - before) / len(running) / 1e9
        running[name] += change
        running += Counter()  # Drops zeros.
        before = now
    begun = Counter(name for _, name, change in changes if change > 0)
    return [
        (operation := known.get(name, UNKNOWN), value / RUNS, operation.flops * begun[name] / RUNS)
        for name, value in seconds.most_common()
    ]


def spans(planes: list) -> Iterator[tuple[float, float, str]]:
    """Yields (start, end, instruction) on the GPUs, or on the CPU without GPUs, in nanoseconds."""
    gpus = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    for plane in gpus or planes:
        begun, ended = [], {}
        for line in plane.lines:
            if gpus and not line.name.startswith("Stream"):
                continue  # Other lines repeat the same time by module and step.
            for event in line.events:
                stats = dict(event.stats)
                if gpus or "hlo_op" in stats:
                    begun.append((event, stats.get("hlo_op", event.name), stats.get("_p")))
                elif event.name.startswith("end: "):
                    ended[stats["_c"]] = event.end_ns
        for event, name, key in begun:
            # On a CPU, the event of a multi-threaded operation ends before its threads do.
            yield event.start_ns, max(event.end_ns, ended.get(key, 0)), name


def sums(measured: list[Measured], by: str) -> dict[str, tuple[float, float]]:
    """Returns total seconds and FLOPs by "kind" or by "part", the longest first."""
    rows = defaultdict(lambda: np.zeros(2))
    for operation, *figures in measured:
        rows[getattr(operation, by)] += figures
    return dict(sorted(rows.items(), key=lambda row: -row[1][0]))


def main() -> None:
    parser = programs.arguments(__doc__)
    parser.add_argument("--architecture", default="mmagic")
    parser.add_argument("--case", type=programs.parse_case, default="inference-256-1")
    parser.add_argument("--precision", choices=programs.PRECISIONS, default="float32")
    parser.add_argument(
        "--top", type=int, default=20, help="number of operations in the last table"
    )
    parser.add_argument("--trace", type=Path, help="folder for the profile itself")
    options = parser.parse_args()
    case = options.case, options.architecture, options.width, options.precision
    program = programs.make_program(*case, **OPTIONS)
    jax.block_until_ready(program.call())
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.trace or Path(scratch)
        with jax.profiler.trace(folder):
            for _ in range(RUNS):
                jax.block_until_ready(program.call())
        measured = profile(folder, instructions(program.compiled.as_text()))
    total = sum(seconds for _, seconds, _ in measured)
    peak = programs.matmul_rate(options.precision)
    tables = {by: sums(measured, by) for by in ("kind", "part")}
    programs.report(
        options.output,
        case=str(options.case),
        precision=options.precision,
        architecture=options.architecture,
        width=options.width,
        seconds=total,
        matmul_gflop_per_second=peak / 1e9,
        **{f"by_{by}": {row: value for row, (value, _) in t.items()} for by, t in tables.items()},
        **programs.machine(),
    )

    def rate(flops: float, seconds: float) -> str:
        return f"{flops / seconds / peak:.0%}" if flops else ""

    for by, table in tables.items():
        print(f"\n| {by} | ms | share | GFLOP | % of matmul rate |\n|---|---|---|---|---|")
        for row, (seconds, flops) in table.items():
            columns = f"{1e3 * seconds:.1f}", f"{seconds / total:.0%}", f"{flops / 1e9:.1f}"
            print(f"| {row} | {' | '.join(columns)} | {rate(flops, seconds)} |")
    print("\n| ms | operation | output | % of matmul rate | source |\n|---|---|---|---|---|")
    for (kind, source, shape, _), seconds, flops in measured[: options.top]:
        source = re.sub(r"jit\(\w+\)/", "", source)
        columns = f"{1e3 * seconds:.1f}", kind, shape, rate(flops, seconds), source
        print(f"| {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
