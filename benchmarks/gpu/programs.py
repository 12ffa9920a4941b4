"""What the scripts beside this one share: the measured programs, how they are timed, JSON lines."""

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deepfill_jax import losses, sharding, steps, train_state
from deepfill_jax.models import Discriminator, Generator, make_variant
from deepfill_jax.models.variants import UNIT_VARIANCE

# Name: type of the networks' arithmetic, and whether a GPU may round factors of float32 products.
PRECISIONS = {
    "bfloat16": (jnp.bfloat16, "default"),
    "tf32": (jnp.float32, "default"),
    "float32": (jnp.float32, "highest"),
}
RECIPE = losses.Recipe(
    discriminator=1.0, adversarial=0.1, l1_whole=0.0, l1_hole=1.0, l1_valid=1.0, joint_pass=False
)
OPTIMIZER = train_state.make_optimizer(
    learning_rate=1e-4, beta1=0.9, beta2=0.999, warmup_steps=0, decay_steps=0, clip_norm=0.0
)
ROUND_SECONDS = 0.3  # What a round takes at least, so that enqueuing counts as in a real run.


class Shape(NamedTuple):
    """Of a batch of square pictures; on the command line SIDExBATCH."""

    side: int
    batch: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Reads what the command line says."""
        return cls(*map(int, text.split("x")))


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser of what every script takes."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder for results")
    parser.add_argument("--width", type=int, default=24)
    return parser


def shape_arguments(description: str) -> argparse.ArgumentParser:
    """A parser of what the timing scripts take."""
    parser = arguments(description)
    shapes = {"type": Shape.parse, "nargs": "*", "metavar": "SIDExBATCH"}
    parser.add_argument("--training", default=[Shape(256, n) for n in (16, 32, 64)], **shapes)
    inference = [Shape(256, 16), *(Shape(side, 1) for side in (256, 512, 1024, 2048))]
    parser.add_argument("--inference", default=inference, **shapes)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=7)
    return parser


class Report:
    """JSON lines, on the screen and at the end of a file, so that a killed run leaves its own."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        device = jax.devices()[0]
        flags = os.environ.get("XLA_FLAGS", "")
        self(
            device=device.device_kind, devices=jax.device_count(), jax=jax.__version__, flags=flags
        )

    def __call__(self, **fields: Any) -> None:
        """Adds a line."""
        line = json.dumps(fields)
        print(line, flush=True)
        with self._path.open("a") as file:
            file.write(line + "\n")


def make_networks(
    width: int, dtype: jnp.dtype, architecture: str = "mmagic"
) -> tuple[Generator, Discriminator]:
    """Generator and discriminator."""
    critic_width = max(1, width * 64 // 24)
    variant = make_variant(architecture, width=width, discriminator_width=critic_width)
    # With the published init the signal dies on its way and hides every difference.
    variant = dataclasses.replace(variant, kernel_init=UNIT_VARIANCE)
    return Generator(variant, dtype), Discriminator(variant, dtype)


def make_state(width: int, mesh: Mesh) -> train_state.TrainState:
    """The first state of a training; parameters are float32 whatever the networks compute in."""
    networks = make_networks(width, jnp.float32)
    return train_state.create_train_state(
        *networks, OPTIMIZER, OPTIMIZER, seed=0, averaged=False, mesh=mesh
    )


def make_step(networks: tuple[Generator, Discriminator], mesh: Mesh) -> steps.TrainStep:
    """The published training step."""
    options = {"recipe": RECIPE, "average_decay": 0.0, "microbatches": 1, "mesh": mesh}
    return steps.make_train_step(*networks, OPTIMIZER, OPTIMIZER, **options)


def make_batch(shape: Shape) -> dict[str, np.ndarray]:
    """Random pixels with a hole over the middle, a quarter of the picture."""
    random = np.random.default_rng(0)
    side = shape.side
    image = random.integers(0, 256, (shape.batch, side, side, 3), dtype=np.uint8)
    mask = np.zeros((shape.batch, side, side, 1), np.uint8)
    mask[:, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    return {"image": image, "mask": mask}


def time_calls(
    call: Callable[[], Any], wait: Callable[[Any], None], *, batch: int, rounds: int
) -> dict[str, Any]:
    """Seconds of a call, which may return before its work is done; `wait` waits for that.

    A round is enqueued whole, then waited for.
    """

    def one_round(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            result = call()
        wait(result)
        return (time.perf_counter() - start) / calls

    one_round(1)
    calls = max(1, round(ROUND_SECONDS / one_round(1)))
    seconds = [one_round(calls) for _ in range(rounds)]
    median = statistics.median(seconds)
    return {
        "median_s": round(median, 6),
        "spread_s": [round(min(seconds), 6), round(max(seconds), 6)],
        "images_per_s": round(batch / median, 2),
        "rounds": [rounds, calls],
    }


def put(shape: Shape, mesh: Mesh) -> dict[str, jax.Array]:
    """`make_batch` on the devices."""
    return sharding.shard_batch(make_batch(shape), mesh)


def each(shapes: dict[str, Sequence[Shape]], precisions: Sequence[str]):
    """Yields (precision, program, shape), all shapes of one precision after another."""
    for precision in precisions:
        for program, some in shapes.items():
            for shape in some:
                yield precision, program, shape
