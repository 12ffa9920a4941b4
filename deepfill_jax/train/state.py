"""The state of a training run: a tree of arrays that each step updates and a checkpoint saves."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deepfill_jax import sharding
from deepfill_jax.models import Discriminator, Generator

PyTree = Any


class NetState(flax.struct.PyTreeNode):
    """The state of one network.

    Attributes:
        params: Parameters.
        opt_state: State of its optimizer.
        average: Running average of the generator's parameters; empty for the discriminator, and if
            the run keeps no average.
        spectral: Vectors of the discriminator's power iteration; empty for the generator.
    """

    params: PyTree
    opt_state: optax.OptState
    average: PyTree
    spectral: PyTree


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training step reads and writes."""

    step: jax.Array  # int32 scalar, the number of finished steps.
    generator: NetState
    discriminator: NetState

    @property
    def inference_params(self) -> PyTree:
        """The generator's parameters for evaluation: the running average, if the run keeps one."""
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
    """Initialises the state randomly, directly on the devices of the mesh.

    Args:
        generator: The network.
        discriminator: The network.
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of the discriminator.
        seed: Seed of the initial parameters.
        averaged: Whether to keep a running average of the generator's parameters.
        mesh: Devices; the state is replicated on all of them.
    """
    image, mask = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    sketch = mask if generator.variant.guided else None

    def create(key: jax.Array) -> TrainState:
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

    # `create` returns only parameters, so XLA removes the networks' arithmetic. The remaining
    # program compiles three times as fast with the "rbg" generator as with the default one.
    key = jax.random.key(seed, impl="rbg")
    return jax.jit(create, out_shardings=sharding.replicated(mesh))(key)


def ema_decay_at(decay: float, step: jax.Array) -> jax.Array:
    """Decay of the running average after `step` steps: min(decay, (1 + step) / (10 + step)).

    Early averages are short, so that they soon forget the parameters of the start; TensorFlow's
    ExponentialMovingAverage has the same formula.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def learning_rate_schedule(
    *, learning_rate: float, warmup_steps: int, decay_steps: int, decay_start: int = 0
) -> optax.Schedule:
    """Returns the learning rate as a function of the number of finished steps.

    Args:
        learning_rate: Learning rate after the warm-up.
        warmup_steps: Number of steps over which the learning rate grows linearly from 0; 0 disables
            the warm-up.
        decay_steps: Number of steps, warm-up included, after which the learning rate has fallen to
            0 along a cosine; 0 keeps it constant.
        decay_start: Number of steps before the decay begins; the warm-up, if that is longer.
    """
    if decay_steps and decay_start > warmup_steps:
        constant = learning_rate_schedule(
            learning_rate=learning_rate, warmup_steps=warmup_steps, decay_steps=0
        )
        decay = optax.cosine_decay_schedule(learning_rate, decay_steps - decay_start)
        return optax.join_schedules([constant, decay], [decay_start])
    if decay_steps:
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if warmup_steps else learning_rate,
            peak_value=learning_rate,
            warmup_steps=warmup_steps,
            decay_steps=decay_steps,
        )
    if warmup_steps:
        return optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.constant_schedule(learning_rate)


def make_optimizer(
    *, beta1: float, beta2: float, clip_norm: float, **schedule: Any
) -> optax.GradientTransformationExtraArgs:
    """Adam with an optional learning-rate schedule and gradient clipping.

    Its state is Adam's for all values, so that each can be changed in an existing run. `update`
    takes the number of the run's finished steps as `step`; by default, it is the number of updates.

    Args:
        beta1: Decay rate of the mean of the gradients.
        beta2: Decay rate of the mean of the squared gradients.
        clip_norm: Maximum global norm of the gradient; 0 disables clipping.
        schedule: See `learning_rate_schedule`.
    """
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    adam = optax.scale_by_adam(b1=beta1, b2=beta2, eps=1e-8)
    rate = learning_rate_schedule(**schedule)

    def update(
        gradients: PyTree,
        state: optax.ScaleByAdamState,
        params: PyTree = None,
        *,
        step: jax.Array | None = None,
    ) -> tuple[PyTree, optax.ScaleByAdamState]:
        size = -rate(state.count if step is None else step)
        gradients, _ = clip.update(gradients, optax.EmptyState())
        directions, state = adam.update(gradients, state)
        return jax.tree.map(lambda x: size * x, directions), state

    return optax.GradientTransformationExtraArgs(adam.init, update)
