"""Loss functions of the paper (sections 3.2 and 3.4), and the recipe that weights them.

Images are float32 [B, H, W, 3] in [-1, 1]; masks are [B, H, W, 1] with 1 in the hole; scores are
the discriminator's output. Every loss is a float32 scalar, a mean over the whole batch.
"""

import dataclasses

import jax
import jax.numpy as jnp

EPSILON = 1e-12  # Added to the divisor of a region's mean, as in MMagic.


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Weights of the loss terms. The configs hold the two published recipes.

    Attributes:
        discriminator: Weight of the two hinge losses. TF1 release 0.5, MMagic 1.
        adversarial: Weight of the generator's adversarial loss. TF1 release 1, MMagic 0.1. If it is
            0, no discriminator is trained.
        l1_whole: Weight of the mean over all pixels. TF1 release 1, MMagic 0.
        l1_hole: Weight of the mean over the hole. TF1 release 0, MMagic 1.
        l1_known: Weight of the mean over known pixels. TF1 release 0, MMagic 1.
        concat_real_fake: Whether the discriminator scores completed and real images in one pass
            (TF1 release) or in two (MMagic). Each pass makes one power iteration, so the spectral
            norms differ slightly.
        adversarial_start_step: Number of steps without the adversarial loss; the discriminator is
            not trained in them either.
        adversarial_ramp_steps: After them, the adversarial weight grows linearly from 0 over this
            many steps, while the discriminator learns.
        perceptual: Weight of LPIPS between completed and real images. Neither published recipe has
            this loss.
        perceptual_network: Network of LPIPS, one of `perceptual.NETWORKS`.
    """

    discriminator: float
    adversarial: float
    l1_whole: float
    l1_hole: float
    l1_known: float
    concat_real_fake: bool
    adversarial_start_step: int = 0
    adversarial_ramp_steps: int = 0
    perceptual: float = 0.0
    perceptual_network: str = "alexnet"


def hinge_real(scores: jax.Array) -> jax.Array:
    """Hinge loss of the scores of real images: mean(max(0, 1 - D(real)))."""
    return jnp.mean(jax.nn.relu(1.0 - scores))


def hinge_fake(scores: jax.Array) -> jax.Array:
    """Hinge loss of the scores of completed images: mean(max(0, 1 + D(completed)))."""
    return jnp.mean(jax.nn.relu(1.0 + scores))


def adversarial(scores: jax.Array) -> jax.Array:
    """The generator's adversarial loss: -mean(D(completed))."""
    return -jnp.mean(scores)


def adversarial_weight(recipe: Recipe, step: jax.Array) -> jax.Array | float:
    """Weight of the adversarial loss after `step` finished steps, an int32 scalar."""
    if not (recipe.adversarial_start_step or recipe.adversarial_ramp_steps):
        return recipe.adversarial
    since = step - recipe.adversarial_start_step
    ramp = since / recipe.adversarial_ramp_steps if recipe.adversarial_ramp_steps else since >= 0
    return recipe.adversarial * jnp.clip(ramp, 0.0, 1.0)


def l1(predicted: jax.Array, image: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Mean absolute difference over the whole image, the hole, and the known pixels.

    As in MMagic, a region's differences are summed over the batch before the division, so each
    pixel has the same weight, not each example.
    """
    difference = jnp.abs(predicted - image)
    channels = difference.shape[-1]

    def mean_over(region: jax.Array) -> jax.Array:
        return jnp.sum(difference * region) / (channels * jnp.sum(region) + EPSILON)

    return {
        "whole": jnp.mean(difference),
        "hole": mean_over(mask),
        "known": mean_over(1.0 - mask),
    }


def reconstruction(recipe: Recipe, distances: dict[str, jax.Array]) -> jax.Array:
    """Weighted sum of the distances that `l1` returns."""
    return (
        recipe.l1_whole * distances["whole"]
        + recipe.l1_hole * distances["hole"]
        + recipe.l1_known * distances["known"]
    )
