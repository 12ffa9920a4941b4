"""The programs that the benchmarks here measure, as users get them."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepfill_jax import compiler, losses, sharding, steps, train_state
from deepfill_jax.models import Discriminator, Generator, attention, make_variant

RECIPE = losses.Recipe(
    discriminator=1.0, adversarial=0.1, l1_whole=0.0, l1_hole=1.0, l1_valid=1.0, joint_pass=False
)


class Program(NamedTuple):
    """A compiled program with its arguments."""

    call: Callable[[], None]  # Runs it once and waits for it.
    compiled: jax.stages.Compiled
    compile_seconds: float
    flops: float  # By XLA's count for the program as it is written.


def random_batch(size: int, batch: int) -> dict[str, np.ndarray]:
    """Noise with a square hole, {"image": uint8 [B, S, S, 3], "mask": uint8 [B, S, S, 1]}."""
    random = np.random.default_rng(0)
    mask = np.zeros((batch, size, size, 1), np.uint8)
    mask[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    return {"image": random.integers(0, 256, (batch, size, size, 3), dtype=np.uint8), "mask": mask}


def make_inference(architecture: str, size: int, batch: int, width: int) -> Program:
    """The generator on uint8 pictures, attention in the blocks of `Inpainter`."""
    variant = make_variant(architecture, width=width)
    mesh = sharding.make_mesh()
    whole, blocked = (
        steps.make_inference_step(Generator(variant, attention_memory=memory), mesh)
        for memory in (None, compiler.attention_memory())
    )
    small = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 8, 8, 1))
    shapes = jax.eval_shape(Generator(variant).init, jax.random.key(0), *small)["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.05 * random.normal(size=x.shape).astype(x.dtype), shapes)
    params = jax.device_put(params)
    arguments = params, sharding.shard_batch(random_batch(size, batch), mesh)
    # The turns of a loop are not in XLA's count.
    flops = whole.lower(*arguments).cost_analysis()["flops"]
    compiled, seconds = _compile(blocked, *arguments)
    return Program(lambda: jax.block_until_ready(compiled(*arguments)), compiled, seconds, flops)


def make_training(architecture: str, size: int, batch: int, width: int) -> Program:
    """One training step of both networks."""
    variant = make_variant(architecture, width=width, discriminator_width=max(1, width * 64 // 24))
    networks = Generator(variant), Discriminator(variant)
    mesh = sharding.make_mesh()
    optimizer = train_state.make_optimizer(
        learning_rate=1e-4, beta1=0.9, beta2=0.999, warmup_steps=0, decay_steps=0, clip_norm=0.0
    )
    state = train_state.create_train_state(
        *networks, optimizer, optimizer, seed=0, averaged=False, mesh=mesh
    )
    step = steps.make_train_step(
        *networks,
        optimizer,
        optimizer,
        recipe=RECIPE,
        average_decay=0.0,
        microbatches=1,
        mesh=mesh,
    )
    pictures = sharding.shard_batch(random_batch(size, batch), mesh)
    flops = step.lower(state, pictures).cost_analysis()["flops"]
    compiled, seconds = _compile(step, state, pictures)

    def call():
        nonlocal state
        state, scalars = compiled(state, pictures)
        jax.block_until_ready((state, scalars))

    return Program(call, compiled, seconds, flops)


def make_attention(architecture: str, size: int, batch: int, width: int) -> Program:
    """Contextual attention alone, on the map that a picture of this size gives."""
    variant = make_variant(architecture, width=width)
    features = jax.random.normal(jax.random.key(0), (batch, size // 4, size // 4, 4 * width))
    mask = jnp.asarray(random_batch(size, batch)["mask"][:, ::4, ::4], jnp.float32)

    def attend(features, mask, memory):
        return attention.contextual_attention(
            features,
            features,
            mask,
            nearest=variant.nearest,
            unavailable=variant.unavailable,
            overlap=variant.overlap,
            memory=memory,
        )

    jitted = jax.jit(attend, static_argnums=2, compiler_options=compiler.options())
    flops = jitted.lower(features, mask, None).cost_analysis()["flops"]
    compiled, seconds = _compile(jitted, features, mask, compiler.attention_memory())
    return Program(
        lambda: jax.block_until_ready(compiled(features, mask)), compiled, seconds, flops
    )


PROGRAMS = {"inference": make_inference, "training": make_training, "attention": make_attention}


def _compile(jitted, *arguments):
    lowered = jitted.lower(*arguments)
    start = time.perf_counter()
    compiled = lowered.compile()
    return compiled, time.perf_counter() - start


def matmul_rate(side: int = 2048) -> float:
    """Measures the machine's FLOP/s in a float32 matrix product, the best of a few."""
    x = jnp.ones((side, side))
    multiply = jax.jit(jnp.matmul)
    multiply(x, x).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        multiply(x, x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2.0 * side**3 / min(seconds)
