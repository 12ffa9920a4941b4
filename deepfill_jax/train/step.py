"""The training step: a pure function, jitted, its batch sharded over the devices.

One training step is one update of the discriminator and then one of the generator against it, on
the same batch. Scalars of a step, by name:

    loss/generator       what the generator minimises
    loss/discriminator   what the discriminator minimises
    loss/adversarial     -mean D(completed)
    loss/perceptual      mean LPIPS of completed images, if the recipe has a weight for it
    hinge/real, hinge/fake               the discriminator's two sides; 1 where it knows nothing
    l1/{coarse,refined}/{whole,hole,known}   mean absolute difference, in [-1, 1] units
    gradient_norm/{generator,discriminator}  before clipping
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from deepfill_jax import compiler, perceptual, sharding
from deepfill_jax.image import floats, mask_out
from deepfill_jax.models import Discriminator, Generator
from deepfill_jax.train import losses
from deepfill_jax.train.losses import Recipe
from deepfill_jax.train.state import TrainState, ema_decay_at

PyTree = Any
Batch = Mapping[str, jax.Array]
Scalars = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Scalars]]


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
    deterministic: bool = False,
) -> TrainStep:
    """Makes the step: (state, batch) -> (state, scalars).

    Args:
        generator: The network.
        discriminator: The network.
        generator_optimizer: Its optimiser.
        discriminator_optimizer: Its optimiser.
        recipe: Weights of the losses.
        ema_decay: Decay of the generator's running average, see `ema_decay_at`; 0 if the state
            keeps none.
        grad_accum_steps: Into how many parts a batch is cut whose gradients are averaged, to save
            memory. The mean over the holes is then one of each part.
        mesh: The devices. The state lies on all of them, the batch is split.
        deterministic: See `compiler.options`.

    Returns:
        The jitted step. It takes {"image": uint8 [B, H, W, 3], "mask": uint8 [B, H, W, 1]}, of
        guided networks also {"sketch": uint8 [B, H, W, 1]}, and donates the state that it is given.
    """

    def train_step(state, batch, perceptual_params=None):
        g, d = state.generator, state.discriminator
        spectral, scalars = d.spectral, {}
        if recipe.adversarial:
            loss = partial(discriminator_loss, generator, discriminator, recipe, g.params)
            gradients, spectral, scalars = _gradients(
                loss, d.params, spectral, batch, grad_accum_steps
            )
            d = _update(d, gradients, discriminator_optimizer)
            scalars["gradient_norm/discriminator"] = optax.tree.norm(gradients)
        loss = partial(
            generator_loss,
            generator,
            discriminator,
            recipe,
            d.params,
            step=state.step,
            perceptual_params=perceptual_params,
        )
        gradients, spectral, more = _gradients(loss, g.params, spectral, batch, grad_accum_steps)
        g = _update(g, gradients, generator_optimizer)
        if ema_decay:
            decay = ema_decay_at(ema_decay, state.step)
            average = optax.incremental_update(g.params, g.average, 1.0 - decay)
            g = g.replace(average=average)
        scalars |= more | {"gradient_norm/generator": optax.tree.norm(gradients)}
        state = TrainState(state.step + 1, g, d.replace(spectral=spectral))
        return state, scalars

    everywhere = sharding.replicated(mesh)
    constants = (perceptual.load(recipe.perceptual_network),) if recipe.perceptual else ()
    jitted = jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(everywhere, sharding.batch_sharding(mesh), *(everywhere for _ in constants)),
        out_shardings=everywhere,
        compiler_options=compiler.options(training=True, deterministic=deterministic),
    )
    return BoundStep(jitted, *jax.device_put(constants, everywhere)) if constants else jitted


@dataclasses.dataclass(frozen=True)
class BoundStep:
    """A step with the weights of a fixed network as its last argument.

    As constants of the program they would be folded by XLA, which takes minutes.
    """

    function: Callable[..., tuple[TrainState, Scalars]]  # Jitted or compiled.
    weights: PyTree

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """Runs the step."""
        return self.function(state, batch, self.weights)

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """Lowers the jitted function for arguments of these shapes."""
        return self.function.lower(state, batch, self.weights)


def discriminator_loss(
    generator: Generator,
    discriminator: Discriminator,
    recipe: Recipe,
    generator_params: PyTree,
    params: PyTree,
    spectral: PyTree,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, Scalars]]:
    """Hinge loss of real against completed images.

    Args:
        generator: The network.
        discriminator: The network.
        recipe: Weights of the losses.
        generator_params: The generator's parameters, which stay as they are.
        params: The discriminator's parameters, to differentiate by.
        spectral: Vectors of the power iteration.
        batch: As the step takes it.

    Returns:
        The loss, and the vectors after the passes with the scalars by name.
    """
    image, mask, sketch = floats(batch)
    completed = generator.apply(
        {"params": generator_params}, mask_out(image, mask), mask, sketch
    ).completed
    score = partial(_score, discriminator, params)
    if recipe.concat_real_fake:
        # Each image is beside its completion, so that every device keeps to its own rows.
        both = jnp.stack([completed, image], axis=1).reshape(-1, *image.shape[1:])
        twice = partial(jnp.repeat, repeats=2, axis=0)
        scores, spectral = score(spectral, both, *jax.tree.map(twice, (mask, sketch)))
        fake_scores, real_scores = scores[::2], scores[1::2]
    else:
        fake_scores, spectral = score(spectral, completed, mask, sketch)
        real_scores, spectral = score(spectral, image, mask, sketch)
    hinges = {
        "hinge/real": losses.hinge_real(real_scores),
        "hinge/fake": losses.hinge_fake(fake_scores),
    }
    loss = recipe.discriminator * sum(hinges.values())
    return loss, (spectral, hinges | {"loss/discriminator": loss})


def generator_loss(
    generator: Generator,
    discriminator: Discriminator,
    recipe: Recipe,
    discriminator_params: PyTree,
    params: PyTree,
    spectral: PyTree,
    batch: Batch,
    *,
    step: jax.Array,
    perceptual_params: PyTree = None,
) -> tuple[jax.Array, tuple[PyTree, Scalars]]:
    """Reconstruction loss of both stages; adversarial and perceptual loss of the completed images.

    Args:
        generator: The network.
        discriminator: The network.
        recipe: Weights of the losses.
        discriminator_params: The discriminator's parameters, which stay as they are.
        params: The generator's parameters, to differentiate by.
        spectral: Vectors of the power iteration.
        batch: As the step takes it.
        step: int32 scalar, the number of finished steps.
        perceptual_params: Weights of the recipe's fixed network, if it has a perceptual loss.

    Returns:
        As `discriminator_loss`.
    """
    image, mask, sketch = floats(batch)
    predicted = generator.apply({"params": params}, mask_out(image, mask), mask, sketch)
    coarse = losses.l1(predicted.coarse, image, mask)
    refined = losses.l1(predicted.refined, image, mask)
    loss = losses.reconstruction(recipe, coarse) + losses.reconstruction(recipe, refined)
    scalars = {f"l1/coarse/{region}": value for region, value in coarse.items()}
    scalars |= {f"l1/refined/{region}": value for region, value in refined.items()}
    if recipe.adversarial:
        scores, spectral = _score(
            discriminator, discriminator_params, spectral, predicted.completed, mask, sketch
        )
        scalars["loss/adversarial"] = losses.adversarial(scores)
        loss += losses.adversarial_weight(recipe, step) * scalars["loss/adversarial"]
    if recipe.perceptual:
        network = recipe.perceptual_network
        pair = (perceptual.shifted(network, x, step) for x in (predicted.completed, image))
        distances = perceptual.distance(network, perceptual_params, *pair)
        scalars["loss/perceptual"] = jnp.mean(distances)
        loss += recipe.perceptual * scalars["loss/perceptual"]
    return loss, (spectral, scalars | {"loss/generator": loss})


def _score(discriminator, params, spectral, image, mask, sketch):
    """Scores and the vectors of the power iteration that the pass has moved on."""
    scores, moved = discriminator.apply(
        {"params": params, "spectral": spectral},
        image,
        mask,
        sketch,
        update_spectral=True,
        mutable=["spectral"],
    )
    return scores, moved["spectral"]


def _update(net, gradients, optimizer):
    updates, opt_state = optimizer.update(gradients, net.opt_state, net.params)
    return net.replace(params=optax.apply_updates(net.params, updates), opt_state=opt_state)


def _gradients(loss, params, spectral, batch, grad_accum_steps):
    """Gradients of `loss` and its scalars, averaged over the batch's parts, run one by one.

    The vectors of the power iteration go from part to part.
    """
    differentiate = jax.grad(loss, has_aux=True)
    if grad_accum_steps == 1:
        gradients, (spectral, scalars) = differentiate(params, spectral, batch)
        return gradients, spectral, scalars

    def run_part(spectral, part):
        gradients, (spectral, scalars) = differentiate(params, spectral, part)
        return spectral, (gradients, scalars)

    # Part i takes rows i, i + n, ...: each device keeps to its own rows of every part.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, grad_accum_steps, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    unroll = compiler.unrolled(grad_accum_steps)
    spectral, stacked = lax.scan(run_part, spectral, parts, unroll=unroll)
    gradients, scalars = jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
    return gradients, spectral, scalars
