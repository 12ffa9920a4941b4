"""Seamless borders: the completion meets the known pixels without a step in color.

The network also predicts the known pixels, but only approximately, so its prediction differs from
the image at the border of the hole. The difference is continued into the hole and added:

    difference    image - prediction, on the known pixels
    membrane      in the hole: the solution of Laplace's equation with these values at the border
    result        prediction + membrane

The result has the gradients of the prediction and the border of the image, which is the seamless
cloning of Poisson image editing (Pérez et al., SIGGRAPH 2003, section 3). In thin holes, it also
replaces colors that the network blurs by those of both sides.
"""

import jax
import jax.numpy as jnp
from jax import lax

from deepfill_jax.image import upsample2x

COARSEST = 8  # Largest side that is solved without a coarser start, in pixels.
SWEEPS = 12  # Sweeps per resolution, after those at the coarsest.
DAMPING = 0.8  # Step of a sweep; a full step would not reduce the checkerboard frequency.


def match_border(prediction: jax.Array, image: jax.Array, mask: jax.Array) -> jax.Array:
    """Adds the membrane to a prediction.

    Args:
        prediction: Float32 [B, H, W, 3], for known pixels and for the hole.
        image: Float32 [B, H, W, 3] in [-1, 1]; its pixels in the hole have no influence.
        mask: Float32 [B, H, W, 1], 1 in the hole.

    Returns:
        Float32 [B, H, W, 3] in [-1, 1]. Known pixels are those of the image, up to rounding.
    """
    known = 1.0 - mask
    difference = jnp.where(known > 0.0, image - prediction, 0.0)
    return jnp.clip(prediction + membrane(difference, known), -1.0, 1.0)


def membrane(values: jax.Array, known: jax.Array) -> jax.Array:
    """Solves Laplace's equation approximately, with the known values as its border values.

    The solution at half the resolution is the start at full resolution (cascadic multigrid), so a
    few sweeps are enough for holes of any size.

    Args:
        values: Float32 [B, H, W, C].
        known: Float32 [B, H, W, 1], 1 where the values are known, otherwise 0.

    Returns:
        Float32 [B, H, W, C]; the known values are unchanged. 0 if nothing is known.
    """
    height, width = values.shape[1:3]
    if max(height, width) <= COARSEST:
        start, sweeps = jnp.zeros_like(values), COARSEST**2
    else:
        number = _sums_of_blocks(known)
        means = _sums_of_blocks(values * known) / jnp.maximum(number, 1.0)
        start = upsample2x(membrane(means, jnp.minimum(number, 1.0)))[:, :height, :width]
        sweeps = SWEEPS

    def relax(_: int, x: jax.Array) -> jax.Array:
        y = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
        mean = (y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:]) / 4.0
        return jnp.where(known > 0.0, values, x + DAMPING * (mean - x))

    return lax.fori_loop(0, sweeps, relax, jnp.where(known > 0.0, values, start))


def _sums_of_blocks(x: jax.Array) -> jax.Array:
    """Sums blocks of 2x2 pixels: [B, H, W, C] to [B, H / 2, W / 2, C], sides rounded up."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).sum(axis=(2, 4))
