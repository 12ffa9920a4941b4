"""Losses of the paper (sections 3.2 and 3.4) and the weights that make a recipe of them.

Images are float32 [B, H, W, 3] in [-1, 1], masks [B, H, W, 1] with 1 in the hole, scores are what
the discriminator returns. Every loss is a float32 scalar, a mean over the whole batch.
"""

import dataclasses

import jax
import jax.numpy as jnp

EPSILON = 1e-12  # MMagic's, in the divisor of a region's mean.


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Weights of the losses; the two published recipes are values of it (see configs/)."""

    discriminator: float  # Of both hinges. TF1 release 0.5, MMagic 1.
    adversarial: float  # TF1 release 1, MMagic 0.1. With 0 there is no discriminator.
    l1_whole: float  # Of the mean over all pixels: TF1 release 1, MMagic 0.
    l1_hole: float  # Of the mean over the hole: TF1 release 0, MMagic 1.
    l1_known: float  # Of the mean over known pixels: TF1 release 0, MMagic 1.
    # Does the discriminator see completed and real images in one pass (TF1 release) or in two
    # (MMagic)? Each pass makes one power iteration, so spectral norms differ a little.
    concat_real_fake: bool
    # The adversarial weight grows from 0 over so many steps, in which the discriminator learns.
    adversarial_ramp_steps: int = 0
    perceptual: float = 0.0  # Of LPIPS between completed and real images; in no published recipe.
    perceptual_network: str = "alexnet"  # One of `perceptual.NETWORKS`.


def hinge_real(scores: jax.Array) -> jax.Array:
    """mean(max(0, 1 - D(real)))."""
    return jnp.mean(jax.nn.relu(1.0 - scores))


def hinge_fake(scores: jax.Array) -> jax.Array:
    """mean(max(0, 1 + D(completed)))."""
    return jnp.mean(jax.nn.relu(1.0 + scores))


def adversarial(scores: jax.Array) -> jax.Array:
    """-mean(D(completed)), the generator's side of the hinge."""
    return -jnp.mean(scores)


def adversarial_weight(recipe: Recipe, step: jax.Array) -> jax.Array | float:
    """Weight of the adversarial loss after `step` steps, an int32 scalar."""
    if not recipe.adversarial_ramp_steps:
        return recipe.adversarial
    return recipe.adversarial * jnp.minimum(1.0, step / recipe.adversarial_ramp_steps)


def l1(predicted: jax.Array, image: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Mean absolute difference over the whole image, the hole, and the known pixels.

    A region's sums run over the batch before they are divided, as MMagic's do: each pixel counts
    the same, not each example.
    """
    difference = jnp.abs(predicted - image)
    channels = difference.shape[-1]

    def mean_over(region):
        return jnp.sum(difference * region) / (channels * jnp.sum(region) + EPSILON)

    return {
        "whole": jnp.mean(difference),
        "hole": mean_over(mask),
        "known": mean_over(1.0 - mask),
    }


def reconstruction(recipe: Recipe, distances: dict[str, jax.Array]) -> jax.Array:
    """Weighted sum of what `l1` returns."""
    return (
        recipe.l1_whole * distances["whole"]
        + recipe.l1_hole * distances["hole"]
        + recipe.l1_known * distances["known"]
    )
