"""Times inference and the training step of the published networks on this machine.

    python benchmarks/speed.py [--size 256] [--batch 1] [--rounds 5] [--width 24]

Prints one JSON line each: compile time apart, median and spread of the rounds, and the ratio to
the same program without the options of `deepfill_jax.compiler`, timed in turn with it.
"""

import argparse
import json
import statistics
import time

import jax
import numpy as np

from deepfill_jax import compiler, losses, sharding, steps, train_state
from deepfill_jax.models import Discriminator, Generator, make_variant

RECIPE = losses.Recipe(
    discriminator=1.0, adversarial=0.1, l1_whole=0.0, l1_hole=1.0, l1_valid=1.0, joint_pass=False
)


def make_programs(size, batch, width):
    """Returns {name: a function that makes a call}, to be made with and without options."""
    variant = make_variant("mmagic", width=width, discriminator_width=max(1, width * 64 // 24))
    networks = Generator(variant), Discriminator(variant)
    mesh = sharding.make_mesh(jax.devices()[:1])
    optimizer = train_state.make_optimizer(
        learning_rate=1e-4, beta1=0.9, beta2=0.999, warmup_steps=0, decay_steps=0, clip_norm=0.0
    )
    state = train_state.create_train_state(
        *networks, optimizer, optimizer, seed=0, averaged=False, mesh=mesh
    )
    random = np.random.default_rng(0)
    pictures = {
        "image": random.integers(0, 256, (batch, size, size, 3), dtype=np.uint8),
        "mask": np.zeros((batch, size, size, 1), np.uint8),
    }
    pictures["mask"][:, size // 4 : size // 2, size // 4 : size // 2] = 1
    pictures = sharding.shard_batch(pictures, mesh)

    def inference():
        infer = steps.make_inference_step(networks[0], mesh)
        params = jax.tree.map(jax.numpy.copy, state.generator.params)
        return lambda: jax.block_until_ready(infer(params, pictures))

    def training():
        step = steps.make_train_step(
            *networks,
            optimizer,
            optimizer,
            recipe=RECIPE,
            average_decay=0.0,
            microbatches=1,
            mesh=mesh,
        )
        carried = [jax.tree.map(jax.numpy.copy, state)]

        def call():
            carried[0], scalars = step(carried[0], pictures)
            jax.block_until_ready(scalars)

        return call

    return {"inference": inference, "training step": training}


def compiled(make, options):
    """Makes a call under the options and runs it once; returns it and the seconds that took."""
    chosen, compiler.options = compiler.options, lambda: options
    try:
        start = time.perf_counter()
        call = make()
        call()
        return call, time.perf_counter() - start
    finally:
        compiler.options = chosen


def timed(call):
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=24)
    options = parser.parse_args()
    for name, make in make_programs(options.size, options.batch, options.width).items():
        ours, compile_seconds = compiled(make, compiler.options())
        plain, _ = compiled(make, {})
        pairs = [(timed(ours), timed(plain)) for _ in range(options.rounds)]
        seconds = [a for a, _ in pairs]
        ratios = [a / b for a, b in pairs]
        result = {
            "program": name,
            "size": options.size,
            "batch": options.batch,
            "width": options.width,
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "compile_seconds": round(compile_seconds, 2),
            "median_seconds": round(statistics.median(seconds), 4),
            "spread_seconds": [round(min(seconds), 4), round(max(seconds), 4)],
            "ratio_to_no_options": round(statistics.median(ratios), 3),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
