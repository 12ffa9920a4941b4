"""Compiles the training step for GPUs on a machine without a GPU, and reports XLA's plan.

    pip install '.[train,cuda]'
    PYTHONPATH=benchmarks python benchmarks/gpu/plan.py --output plans.jsonl [--gpu h200]
        [--plans 1:16:bfloat16 ...] [--form cpu]

A plan is DEVICES:BATCH:PRECISION, with the global batch. The script appends a line of JSON per
plan, and prints a table: memory per device, operations between devices and their bytes, transfers
to the host, and a bound of the speed. The bound is calculated, because nothing runs: a step takes
at least as long as the GPU needs for the arithmetic at its peak rate, and for reading and writing
the operands of each compiled operation once at its peak bandwidth. XLA chooses its convolution
algorithms by timing them on the GPU; here it uses its defaults.
"""

import argparse
import collections
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# JAX reads these when it is imported; the check of the CUDA versions needs a driver.
os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
os.environ["XLA_FLAGS"] = "--xla_gpu_autotune_level=0"  # Autotuning needs a device.

import jax
import jax.numpy as jnp
import programs
from jax.experimental import topologies

from deepfill_jax import compiler, sharding
from deepfill_jax.train.step import make_train_step

SIDE = 256
PLANS = ("1:16:bfloat16", "1:64:bfloat16", "1:16:tf32", "8:128:bfloat16", "8:512:bfloat16")
# A streaming multiprocessor of compute capability 9.0, as XLA describes it.
HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 l2_cache_size: 52428800
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  cuda_compute_capability {{ major: 9 }}
  memory_bandwidth: {bandwidth:.0f} device_memory_size: {memory:.0f}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 }}
device_description_str: "{name}"
"""
# Peak rates of dense matrix products in FLOP/s, from NVIDIA's data sheet for the SXM modules.
RATES = {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12}
NVLINK = 450e9  # Bytes per second in each direction.
BETWEEN_DEVICES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "reduce-scatter",
    "collective-permute",
)
TO_HOST = ("infeed", "outfeed", "send", "recv")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
# Instructions that neither read nor write memory.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}


class Gpu(NamedTuple):
    """A GPU of compute capability 9.0."""

    name: str
    bandwidth: float  # Bytes per second.
    memory: float  # Bytes.

    def devices(self, count: int) -> Sequence[jax.Device]:
        """Describes some of these GPUs in one machine to XLA."""
        config = HOPPER.format(**self._asdict())
        topology = f"1x1x{count}"
        described = topologies.get_topology_desc(
            platform="cuda", target_config=config, topology=topology
        )
        return described.devices


GPUS = {
    "h100": Gpu("NVIDIA H100 80GB HBM3", 3.35e12, 80e9),
    "h200": Gpu("NVIDIA H200", 4.8e12, 141e9),
}


class Plan(NamedTuple):
    """A training step to compile."""

    devices: int
    batch: int  # Of all devices together.
    precision: str

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """Parses DEVICES:BATCH:PRECISION."""
        devices, batch, precision = text.split(":")
        plan = cls(int(devices), int(batch), precision)
        if precision not in RATES or plan.devices < 1 or plan.batch % plan.devices:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not DEVICES:BATCH:PRECISION with a precision of "
                f"{', '.join(RATES)} and a batch that is a multiple of the devices."
            )
        return plan

    def __str__(self) -> str:
        return ":".join(map(str, self))


class Instruction(NamedTuple):
    """An instruction of a compiled program."""

    kind: str
    written: int  # Bytes of the result.
    moved: int  # Bytes of the operands and of the result.


def compile_step(plan: Plan, gpu: Gpu, width: int) -> tuple[jax.stages.Compiled, float]:
    """Compiles the training step; returns it and its FLOP per step, on all devices together."""
    compiled = lower(plan, gpu.devices(plan.devices), width).compile()
    # JAX counts operations only for devices that exist.
    with compiler.use_form("default"):
        flops = lower(plan, jax.devices("cpu")[:1], width).cost_analysis()["flops"]
    return compiled, flops


def lower(plan: Plan, devices: Sequence[jax.Device], width: int) -> jax.stages.Lowered:
    """Lowers the training step for the devices."""
    dtype, rounding = programs.PRECISIONS[plan.precision]
    networks, mesh = programs.make_networks("official", width, dtype), sharding.make_mesh(devices)
    step = make_train_step(
        *networks,
        *(programs.OPTIMIZER, programs.OPTIMIZER),
        recipe=programs.RECIPE,
        ema_decay=0.0,
        grad_accum_steps=1,
        mesh=mesh,
    )
    batch = {
        name: jax.ShapeDtypeStruct((plan.batch, SIDE, SIDE, channels), jnp.uint8)
        for name, channels in (("image", 3), ("mask", 1))
    }
    with jax.default_matmul_precision(rounding):
        return step.lower(jax.eval_shape(lambda: programs.make_state(networks, mesh)), batch)


def size(shapes: str) -> int:
    """Returns the bytes of an array type of HLO, such as "f32[8,3]{1,0}", or of a tuple of them."""
    total = 0
    for kind, sides in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shapes):
        count = 1
        for side in filter(None, sides.split(",")):
            count *= int(side)
        total += BYTES.get(kind, 4) * count
    return total


def instructions(program: str) -> Iterator[Instruction]:
    """Yields the instructions of a program's entry computation that move memory."""
    entry = program[program.index("\nENTRY ") :]
    sizes = {}
    form = re.compile(r"^\s*(?:ROOT )?(%[\w.-]+) = (.+?) ([a-z][\w-]*)\((.*?)\)(?:,|$)", re.M)
    for name, shapes, kind, operands in form.findall(entry):
        sizes[name] = size(shapes)
        if kind not in FREE and not kind.endswith("-done"):
            read = sum(sizes.get(operand, 0) for operand in re.findall(r"%[\w.-]+", operands))
            yield Instruction(kind.removesuffix("-start"), sizes[name], sizes[name] + read)


def report(plan: Plan, gpu: Gpu, compiled: jax.stages.Compiled, flops: float) -> dict[str, Any]:
    """Returns the figures of a compiled step."""
    memory = compiled.memory_analysis()
    program = compiled.as_text()
    found = list(instructions(program))
    counts = collections.Counter(x.kind for x in found)
    moved = sum(x.moved for x in found)
    between = [x for x in found if x.kind in BETWEEN_DEVICES]
    seconds = {
        "arithmetic": flops / plan.devices / RATES[plan.precision],
        "memory": moved / gpu.bandwidth,
        # A ring sends and receives each byte almost twice.
        "all_reduce": 2 * sum(x.written for x in between) / NVLINK,
    }
    bound = max(seconds["arithmetic"], seconds["memory"]) + seconds["all_reduce"]
    return {
        "plan": str(plan),
        "gpu": gpu.name,
        "gb": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e9,
        "between_devices": {kind: counts[kind] for kind in BETWEEN_DEVICES if counts[kind]},
        "mb_between_devices": sum(x.written for x in between) / 1e6,
        "to_host": sum(counts[kind] for kind in TO_HOST),
        "fusions": counts["fusion"],
        "convolutions": program.count('custom_call_target="__cudnn$conv'),
        "tflop": flops / 1e12,
        "gb_moved": moved / 1e9,
        "seconds": seconds,
        "images_per_second": plan.batch / bound,
    }


def table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields lines of Markdown."""
    yield (
        "| devices:batch:precision | memory, GB | between devices | to the host | convolutions "
        "| fusions | arithmetic, ms | memory, ms | images/s, at most |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for x in results:
        between = ", ".join(f"{n} {kind}" for kind, n in x["between_devices"].items())
        cells = (
            x["plan"],
            f"{x['gb']:.1f}",
            f"{between}, {x['mb_between_devices']:.1f} MB" if between else "-",
            x["to_host"],
            x["convolutions"],
            x["fusions"],
            f"{1e3 * x['seconds']['arithmetic']:.1f}",
            f"{1e3 * x['seconds']['memory']:.1f}",
            f"{x['images_per_second']:.0f}",
        )
        yield f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Runs the command."""
    parser = programs.arguments(__doc__)
    programs.add_form(parser)
    parser.add_argument("--gpu", choices=GPUS, default="h100")
    parser.add_argument("--plans", type=Plan.parse, nargs="+", default=list(map(Plan.parse, PLANS)))
    options = parser.parse_args()
    gpu, results = GPUS[options.gpu], []
    for plan in options.plans:
        with compiler.use_form(options.form):
            compiled, flops = compile_step(plan, gpu, options.width)
        results.append(report(plan, gpu, compiled, flops))
        print(json.dumps(results[-1]), flush=True)
        if options.output:
            with Path(options.output).open("a") as file:
                print(json.dumps(results[-1]), file=file)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
