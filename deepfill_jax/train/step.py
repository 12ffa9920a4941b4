"""The training step: a pure function, jitted, sharded.

One step is one update of the discriminator and then one of the generator against it, on the same
batch. Scalars of a step, by name:

    loss/generator       what the generator minimises
    loss/discriminator   what the discriminator minimises
    loss/adversarial     -mean D(completed)
    hinge/real, hinge/fake               the discriminator's two sides; 1 where it knows nothing
    l1/{coarse,refined}/{whole,hole,valid}   mean absolute difference, in [-1, 1] units
    gradient_norm/{generator,discriminator}  before clipping
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from deepfill_jax import compiler, sharding
from deepfill_jax.image import floats, mask_out
from deepfill_jax.models import Discriminator, Generator
from deepfill_jax.train import losses
from deepfill_jax.train.losses import Recipe
from deepfill_jax.train.state import TrainState

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
    average_decay: float,
    microbatches: int,
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
        average_decay: Of the generator's running average; 0 if the state keeps none.
        microbatches: Into how many parts a batch is cut whose gradients are averaged, to save
            memory. The mean over the holes is then one of each part.
        mesh: The devices. The state lies on all of them, the batch is split.
        deterministic: See `compiler.options`.

    Returns:
        The jitted step. It takes {"image": uint8 [B, H, W, 3], "mask": uint8 [B, H, W, 1]}, of
        guided networks also {"sketch": uint8 [B, H, W, 1]}, and donates the state that it is given.
    """

    def discriminator_loss(params, spectral, generator_params, batch):
        image, mask, sketch = floats(batch)
        completed = generator.apply(
            {"params": generator_params}, mask_out(image, mask), mask, sketch
        ).completed
        score = partial(_score, discriminator, params)
        if recipe.joint_pass:
            # Each picture beside its completion: every device keeps to its own rows.
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

    def generator_loss(params, spectral, discriminator_params, batch):
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
            loss += recipe.adversarial * scalars["loss/adversarial"]
        return loss, (spectral, scalars | {"loss/generator": loss})

    def train_step(state, batch):
        g, d = state.generator, state.discriminator
        spectral, scalars = d.spectral, {}
        if recipe.adversarial:
            gradients, spectral, critic_scalars = _gradients(
                discriminator_loss, d.params, spectral, g.params, batch, microbatches
            )
            d = _update(d, gradients, discriminator_optimizer)
            scalars |= critic_scalars
            scalars["gradient_norm/discriminator"] = optax.tree.norm(gradients)
        gradients, spectral, generator_scalars = _gradients(
            generator_loss, g.params, spectral, d.params, batch, microbatches
        )
        g = _update(g, gradients, generator_optimizer)
        if average_decay:
            average = optax.incremental_update(g.params, g.average, 1.0 - average_decay)
            g = g.replace(average=average)
        scalars |= generator_scalars
        scalars["gradient_norm/generator"] = optax.tree.norm(gradients)
        state = TrainState(state.step + 1, g, d.replace(spectral=spectral))
        return state, scalars

    everywhere = sharding.replicated(mesh)
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(everywhere, sharding.batch_sharding(mesh)),
        out_shardings=everywhere,
        compiler_options=compiler.options(training=True, deterministic=deterministic),
    )


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


def _gradients(loss, params, spectral, other_params, batch, microbatches):
    """Gradients of `loss` and its scalars, averaged over the batch's parts, run one by one.

    The vectors of the power iteration go from part to part.
    """
    differentiate = jax.grad(loss, has_aux=True)
    if microbatches == 1:
        gradients, (spectral, scalars) = differentiate(params, spectral, other_params, batch)
        return gradients, spectral, scalars

    def run_part(spectral, part):
        gradients, (spectral, scalars) = differentiate(params, spectral, other_params, part)
        return spectral, (gradients, scalars)

    # Part i takes rows i, i + n, ...: each device keeps to its own rows of every part.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    unroll = compiler.unrolled(microbatches)
    spectral, stacked = lax.scan(run_part, spectral, parts, unroll=unroll)
    gradients, scalars = jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
    return gradients, spectral, scalars
