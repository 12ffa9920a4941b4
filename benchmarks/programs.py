"""The programs that the benchmarks measure, as users run them, and functions for timing them."""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from peers.protocol import Case

from deepfill_jax import compiler, memory, sharding
from deepfill_jax.evaluate.methods import make_inference_step
from deepfill_jax.models import Discriminator, Generator, attention, make_variant
from deepfill_jax.models.variants import UNIT_VARIANCE
from deepfill_jax.train import losses
from deepfill_jax.train.state import TrainState, create_train_state, make_optimizer
from deepfill_jax.train.step import make_train_step

# By name: the type of the networks' computation, and JAX's precision of float32 matrix products.
PRECISIONS = {
    "float32": (jnp.float32, "highest"),
    "tf32": (jnp.float32, "default"),
    "bfloat16": (jnp.bfloat16, "default"),
}
RECIPE = losses.Recipe(
    discriminator=1.0,
    adversarial=0.1,
    l1_whole=0.0,
    l1_hole=1.0,
    l1_known=1.0,
    concat_real_fake=False,
)
OPTIMIZER = make_optimizer(
    learning_rate=1e-4, beta1=0.9, beta2=0.999, warmup_steps=0, decay_steps=0, clip_norm=0.0
)
ROUND_SECONDS = 0.3  # Minimum duration of a round, so that calls are enqueued as in a real run.


Networks = tuple[Generator, Discriminator]


class Program(NamedTuple):
    """A compiled program with its arguments."""

    call: Callable[[], Any]  # Starts one execution, and returns arrays to wait for.
    compiled: jax.stages.Compiled
    compile_seconds: float
    flops: float  # XLA's count for the program before optimisation.


def make_program(case: Case, architecture: str, width: int, precision: str, **options) -> Program:
    """Compiles the program of a case; `options` are additional compiler options."""
    dtype, rounding = PRECISIONS[precision]
    mesh = sharding.make_mesh()
    networks = make_networks(architecture, width, dtype)
    step, whole, first = PROGRAMS[case.kind](case, networks, mesh)
    share = case.batch // jax.process_count()
    own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    pictures = {n: x[own] for n, x in zip(("image", "mask"), case.pictures(), strict=True)}
    arguments = [first, sharding.shard_batch(pictures, mesh)]
    with jax.default_matmul_precision(rounding):
        lowered = step.lower(*arguments)
        flops = whole.lower(*arguments).cost_analysis()["flops"]
    start = time.perf_counter()
    compiled = lowered.compile(options)
    seconds = time.perf_counter() - start

    def call():
        result = compiled(*arguments)
        if case.kind == "training":  # The step donates its input state; the next call needs a new.
            arguments[0], result = result
        return result

    return Program(call, compiled, seconds, flops)


def make_networks(architecture: str, width: int, dtype: jnp.dtype) -> Networks:
    """Makes a generator and a discriminator with widths in the published proportion."""
    variant = make_variant(architecture, width=width, discriminator_width=max(1, width * 64 // 24))
    # With the published initialisation, the signal vanishes in the network and hides differences.
    variant = dataclasses.replace(variant, kernel_init=UNIT_VARIANCE)
    return Generator(variant, dtype), Discriminator(variant, dtype)


def make_state(networks: Networks, mesh: Mesh) -> TrainState:
    """Makes an initial training state, always in float32."""
    return create_train_state(*networks, OPTIMIZER, OPTIMIZER, seed=0, averaged=False, mesh=mesh)


# Each function below returns a jitted step, whose second argument is a batch; the same step without
# blocks of attention, as XLA's FLOP count ignores the number of loop iterations; and the first
# argument.


def make_inference(case: Case, networks: Networks, mesh: Mesh):
    """Makes the generator's inference step on uint8 images, with the attention of `Inpainter`."""
    blocked, whole = (
        make_inference_step(networks[0].clone(attention_memory=size), mesh)
        for size in (memory.attention_memory(), None)
    )
    return blocked, whole, jax.jit(lambda: make_state(networks, mesh).generator.params)()


def make_training(case: Case, networks: Networks, mesh: Mesh):
    """Makes the training step of both networks."""
    options = {"ema_decay": 0.0, "grad_accum_steps": 1, "mesh": mesh}
    step = make_train_step(*networks, OPTIMIZER, OPTIMIZER, recipe=RECIPE, **options)
    return step, step, make_state(networks, mesh)


def make_attention(case: Case, networks: Networks, mesh: Mesh):
    """Makes contextual attention alone, on a feature map of the size of the case's images."""
    variant, dtype = networks[0].variant, networks[0].dtype
    names = ("nearest", "unavailable", "overlap", "fused")
    rules = {name: getattr(variant, name) for name in names}
    shape = case.batch, case.size // 4, case.size // 4, 4 * variant.width

    def attend(features, batch, memory):
        mask = batch["mask"][:, ::4, ::4].astype(jnp.float32)
        return attention.contextual_attention(features, features, mask, memory=memory, **rules)

    blocked, whole = (
        jax.jit(functools.partial(attend, memory=size), compiler_options=compiler.options())
        for size in (memory.attention_memory(), None)
    )
    return blocked, whole, jax.random.normal(jax.random.key(0), shape, dtype)


PROGRAMS = {"inference": make_inference, "training": make_training, "attention": make_attention}
parse_case = functools.partial(Case.parse, kinds=tuple(PROGRAMS))


def time_calls(
    call: Callable[[], Any], rounds: int, wait: Callable[[Any], Any] = jax.block_until_ready
) -> dict[str, float]:
    """Measures the seconds of a call over several rounds; the caller must warm up before.

    A call may return before its work is done; `wait` waits for the result of the last call. A round
    consists of as many calls as take `ROUND_SECONDS`, but at least one.
    """

    def one_round(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            result = call()
        wait(result)
        return (time.perf_counter() - start) / calls

    calls = max(1, round(ROUND_SECONDS / one_round(1)))
    return spread([one_round(calls) for _ in range(rounds)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median, minimum and maximum, rounded to four significant digits."""
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{x:.4g}") for name, x in figures.items()}


def median_and_range(figures: dict[str, float], form: str) -> str:
    """Returns the text of `spread`'s figures for a table: "median (minimum..maximum)"."""
    return f"{figures['median']:{form}} ({figures['min']:{form}}..{figures['max']:{form}})"


def matmul_rate(precision: str) -> float:
    """Measures the machine's FLOP/s in matrix products, the best of a few rounds."""
    dtype, rounding = PRECISIONS[precision]
    side = 2048 if jax.default_backend() == "cpu" else 8192  # Large enough for the full rate.
    x = jnp.ones((side, side), dtype)
    with jax.default_matmul_precision(rounding):
        multiply = jax.jit(jnp.matmul).lower(x, x).compile()
    multiply(x, x).block_until_ready()
    return 2.0 * side**3 / time_calls(lambda: multiply(x, x), rounds=3)["min"]


def arguments(description: str) -> argparse.ArgumentParser:
    """Makes a parser with the arguments common to the benchmark scripts."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--width", type=int, default=24, help="generator width in channels")
    parser.add_argument("--output", type=Path, help="file to which JSON lines are appended")
    return parser


def add_form(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that replaces the choice of `compiler.by_device`."""
    parser.add_argument(
        "--form",
        choices=("cpu", "default"),
        help="form of the convolutions on every device (default: chosen by device)",
    )


def case_arguments(description: str, cases: Sequence[str]) -> argparse.ArgumentParser:
    """Makes a parser with the arguments common to scripts that time cases."""
    parser = arguments(description)
    cases = {"default": [parse_case(case) for case in cases], "metavar": "PROGRAM-SIZE-BATCH"}
    parser.add_argument("--cases", type=parse_case, nargs="+", **cases)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["float32"])
    parser.add_argument("--rounds", type=int, default=5)
    return parser


def machine() -> dict[str, Any]:
    """Returns the properties of the machine and the environment on which results depend."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "flags": os.environ.get("XLA_FLAGS", ""),
    }


def report(output: Path | None, **fields: Any) -> None:
    """Prints a JSON line and appends it to a file, so that a killed run keeps its results."""
    line = json.dumps(fields)
    print(line, flush=True)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a") as file:
            file.write(line + "\n")
