"""What training carries from step to step: arrays and nothing else, so it is the checkpoint."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deepfill_jax import sharding
from deepfill_jax.models import Discriminator, Generator

PyTree = Any


@flax.struct.dataclass
class NetState:
    """A network in training."""

    params: PyTree
    opt_state: optax.OptState
    # Generator: running average of `params`, if there is one. Discriminator: nothing.
    average: PyTree
    # Discriminator: vectors of the power iteration. Generator: nothing.
    spectral: PyTree


@flax.struct.dataclass
class TrainState:
    """Everything that a step reads and writes."""

    step: jax.Array  # int32 scalar: finished steps.
    generator: NetState
    discriminator: NetState

    @property
    def inference_params(self) -> PyTree:
        """The generator's parameters to evaluate and export: the average, if there is one."""
        return self.generator.average or self.generator.params


def create_train_state(
    generator: Generator,
    discriminator: Discriminator,
    generator_optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
    *,
    seed: int,
    averaged: bool,
    mesh: Mesh,
) -> TrainState:
    """Draws initial parameters from `seed`, born on the mesh's devices.

    Args:
        generator: The network.
        discriminator: The network.
        generator_optimizer: Its optimiser.
        discriminator_optimizer: Its optimiser.
        seed: Of all initial parameters.
        averaged: Keep a running average of the generator's parameters.
        mesh: Where the state shall lie, on every device.
    """
    image, mask = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    sketch = mask if generator.variant.guided else None

    def create(key):
        generator_key, discriminator_key = jax.random.split(key)
        params = generator.init(generator_key, image, mask, sketch)["params"]
        variables = discriminator.init(discriminator_key, image, mask, sketch)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            generator=NetState(
                params=params,
                opt_state=generator_optimizer.init(params),
                average=params if averaged else {},
                spectral={},
            ),
            discriminator=NetState(
                params=variables["params"],
                opt_state=discriminator_optimizer.init(variables["params"]),
                average={},
                spectral=variables["spectral"],
            ),
        )

    # Nothing but parameters leaves `create`, so XLA drops the networks' arithmetic. What is left
    # compiles three times as fast with this generator as with the default one.
    key = jax.random.key(seed, impl="rbg")
    return jax.jit(create, out_shardings=sharding.replicated(mesh))(key)


def ema_decay_at(decay: float, step: jax.Array) -> jax.Array:
    """Decay of the running average after `step` steps: min(decay, (1 + step) / (10 + step)).

    Early averages are short, so that they soon forget the parameters of the start; TensorFlow's
    ExponentialMovingAverage has the same formula.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def make_optimizer(
    *,
    learning_rate: float,
    beta1: float,
    beta2: float,
    warmup_steps: int,
    decay_steps: int,
    clip_norm: float,
) -> optax.GradientTransformation:
    """Adam, with what may go around it.

    Args:
        learning_rate: Of a step, after the warm-up.
        beta1: Decay of the mean of gradients.
        beta2: Decay of the mean of squared gradients.
        warmup_steps: Steps over which the learning rate grows from 0; 0 for none.
        decay_steps: Steps, warm-up included, after which it has fallen to 0 along a cosine; 0 to
            leave it constant.
        clip_norm: Largest global norm of a gradient; 0 for no limit.
    """
    if decay_steps:
        schedule = optax.warmup_cosine_decay_schedule(
            init_value=0.0 if warmup_steps else learning_rate,
            peak_value=learning_rate,
            warmup_steps=warmup_steps,
            decay_steps=decay_steps,
        )
    elif warmup_steps:
        schedule = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    else:
        schedule = learning_rate
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(*clip, optax.adam(schedule, b1=beta1, b2=beta2, eps=1e-8))


def with_moments(
    opt_state: optax.OptState, *, count: jax.Array, mu: PyTree, nu: PyTree
) -> optax.OptState:
    """Puts moments into the Adam of an optimiser's state; schedules still start at their step 0."""

    def is_adam(x: Any) -> bool:
        return isinstance(x, optax.ScaleByAdamState)

    return jax.tree.map(
        lambda x: x._replace(count=count, mu=mu, nu=nu) if is_adam(x) else x,
        opt_state,
        is_leaf=is_adam,
    )
