"""Tells what a training step of the published network spends its time on.

    python benchmarks/gpu/profile_step.py OUT TRACE [--training 256x16] [--precisions bfloat16]

Traces a few steps into the folder TRACE, for TensorBoard or Perfetto, and appends to
OUT/profile.jsonl the milliseconds of a step by kind of operation and by part of the networks.
"""

import collections
import re
from pathlib import Path

import jax
import programs

from deepfill_jax import sharding

STEPS = 5
OPTIONS = {"xla_gpu_graph_min_graph_size": 10**6}  # No CUDA graphs: kernels in them have no names.
PART = re.compile(r"(Generator|Discriminator)[^/]*/(?:refine/)?([a-z_0-9]+)?")


def operations(folder: Path):
    """Yields (operation's name, seconds) of everything that the devices ran."""
    (path,) = folder.rglob("*.xplane.pb")
    planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    on_gpu = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    for plane in on_gpu or planes:
        for line in plane.lines:
            if on_gpu and not line.name.startswith("Stream"):
                continue  # The same time again, by module and step.
            for event in line.events:
                name = dict(event.stats).get("hlo_op", event.name if on_gpu else None)
                if name:
                    yield name, event.duration_ns / 1e9


def kind(name: str) -> str:
    """`loop_add_fusion.12` -> `loop_add_fusion`."""
    return re.sub(r"([._]\d+)+$", "", name)


def parts(text: str) -> dict[str, str]:
    """Of each operation of a compiled program, the part of the networks that it belongs to."""
    found = {}
    for name, source in re.findall(r"%?([\w.-]+) = .*op_name=\"([^\"]*)\"", text):
        part = PART.search(source)
        backward = " backward" if "transpose(" in source else ""
        found[name] = "/".join(filter(None, part.groups())) + backward if part else "rest"
    return found


def main() -> None:
    parser = programs.shape_arguments(__doc__)
    parser.add_argument("trace", type=Path)
    options = parser.parse_args()
    report = programs.Report(options.out / "profile.jsonl")
    mesh = sharding.make_mesh()
    first = programs.make_state(options.width, mesh)
    for precision, _, shape in programs.each({"": options.training}, options.precisions):
        dtype, rounding = programs.PRECISIONS[precision]
        batch = programs.put(shape, mesh)
        with jax.default_matmul_precision(rounding):
            step = programs.make_step(programs.make_networks(options.width, dtype), mesh)
            program = step.lower(first, batch).compile(OPTIONS)
        state, _ = program(jax.tree.map(jax.numpy.copy, first), batch)
        jax.block_until_ready(state)
        folder = options.trace / f"{precision}_{shape.side}x{shape.batch}"
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                state, scalars = program(state, batch)
            jax.block_until_ready(scalars)
        part_of = parts(program.as_text())
        tables = {"kind": collections.Counter(), "part": collections.Counter()}
        for name, seconds in operations(folder):
            tables["kind"][kind(name)] += 1e3 * seconds / STEPS
            tables["part"][part_of.get(name, "unnamed")] += 1e3 * seconds / STEPS
        for by, table in tables.items():
            rows = {name: round(milliseconds, 3) for name, milliseconds in table.most_common(40)}
            total = round(table.total(), 3)
            report(precision=precision, **shape._asdict(), by=by, total_ms=total, ms=rows)


if __name__ == "__main__":
    main()
