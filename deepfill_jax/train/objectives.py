"""The losses of both networks as functions of their parameters, for `jax.grad`.

Each makes its forward passes and combines the terms of losses.py by the recipe's weights.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from deepfill_jax import perceptual
from deepfill_jax.image import floats, mask_out
from deepfill_jax.models import Discriminator, Generator, predict
from deepfill_jax.train import losses
from deepfill_jax.train.losses import Recipe

PyTree = Any
Batch = Mapping[str, jax.Array]
Scalars = dict[str, jax.Array]


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
        generator: The generator network.
        discriminator: The discriminator network.
        recipe: Weights of the loss terms.
        generator_params: Parameters of the generator, held fixed.
        params: Parameters of the discriminator, the variables of the gradient.
        spectral: Vectors of the power iteration.
        batch: The batch, see `make_train_step`.

    Returns:
        The loss, and a pair of the vectors after the passes and the scalars by name.
    """
    image, mask, sketch = floats(batch)
    completed = predict(generator, generator_params, mask_out(image, mask), mask, sketch).completed
    score = partial(_score, discriminator, params)
    if recipe.concat_real_fake:
        # Each image is beside its completion, so that every device keeps to its own rows.
        both = jnp.stack([completed, image], axis=1).reshape(-1, *image.shape[1:])
        twice = partial(jnp.repeat, repeats=2, axis=0)
        scores, spectral = score(spectral, both, *jax.tree.map(twice, (mask, sketch)))
        fake_scores, real_scores = jnp.unstack(scores.reshape(-1, 2, *scores.shape[1:]), axis=1)
    else:
        fake_scores, spectral = score(spectral, completed, mask, sketch)
        real_scores, spectral = score(spectral, image, mask, sketch)
    hinges = {
        "hinge/real": losses.hinge_real(real_scores),
        "hinge/fake": losses.hinge_fake(fake_scores),
    }
    loss = recipe.discriminator * (hinges["hinge/real"] + hinges["hinge/fake"])
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
        generator: The generator network.
        discriminator: The discriminator network.
        recipe: Weights of the loss terms.
        discriminator_params: Parameters of the discriminator, held fixed.
        params: Parameters of the generator, the variables of the gradient.
        spectral: Vectors of the power iteration.
        batch: The batch, see `make_train_step`.
        step: Number of finished steps, an int32 scalar.
        perceptual_params: Weights of the LPIPS network, if the recipe has a perceptual loss.

    Returns:
        The loss, and a pair of the vectors after the passes and the scalars by name.
    """
    image, mask, sketch = floats(batch)
    predicted = predict(generator, params, mask_out(image, mask), mask, sketch)
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
        pair = (perceptual.window(network, x, step) for x in (predicted.completed, image))
        distances = perceptual.distance(network, perceptual_params, *pair)
        scalars["loss/perceptual"] = jnp.mean(distances)
        loss += recipe.perceptual * scalars["loss/perceptual"]
    return loss, (spectral, scalars | {"loss/generator": loss})


def _score(
    discriminator: Discriminator,
    params: PyTree,
    spectral: PyTree,
    image: jax.Array,
    mask: jax.Array,
    sketch: jax.Array | None,
) -> tuple[jax.Array, PyTree]:
    """Scores, and the vectors of the power iteration after the pass."""
    scores, moved = discriminator.apply(
        {"params": params, "spectral": spectral},
        image,
        mask,
        sketch,
        update_spectral=True,
        mutable=["spectral"],
    )
    return scores, moved["spectral"]
