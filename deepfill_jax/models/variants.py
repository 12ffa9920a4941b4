"""The published DeepFillv2 architectures and all their differences, in one table.

OFFICIAL is the TF1 release of the paper's authors (JiahuiYu/generative_inpainting, v2.0.0).
MMAGIC is OpenMMLab's implementation (MMagic 1.2.0), the source of the published CelebA-HQ and
Places scores. NIPPONJO and NIPPONJO_TF are the two networks of nipponjo/deepfillv2-pytorch; the
second one is for the weights of the TF1 release. The networks differ in these fields only.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax

from deepfill_jax.errors import UsageError

initializers = jax.nn.initializers


@dataclasses.dataclass(frozen=True)
class Variant:
    """An architecture; `width` and `discriminator_width` scale it.

    Channels are counted after gating: `cnum=48` of the TF1 release is `width=24`.
    """

    name: str

    # Generator.
    padding: str  # "SAME", "SYMMETRIC" or "REFLECT", see layers.convolve.
    gated_rgb: bool  # Is the last convolution of each stage gated too?
    refine_sees_mask: bool  # Does stage 2, like stage 1, get the channel of ones and the mask?
    refine_decoder_scale: float  # Width of the stage-2 decoder, in units of `width`.
    # Activation of the convolution before the attention.
    attention_activation: Callable[[jax.Array], jax.Array]
    kernel_init: initializers.Initializer

    # Contextual attention (models/attention.py).
    nearest: str  # Rounding rule of the downsampling, see image.downsample_nearest.
    unavailable: str  # Treatment of keys with hole pixels in the softmax: "zero_logit", "excluded".
    overlap: str  # Divisor where pasted patches overlap: "constant" (4) or "counted".
    fused: bool  # Are the scores of neighbouring query-key pairs added?
    mask_at_once: bool  # Is the mask downsampled by 8 in one step, or by 4 and then by 2?

    # Discriminator.
    discriminator_padding: str  # "SAME" or "SYMMETRIC", see layers.convolve.
    discriminator_kernel_init: initializers.Initializer
    spectral_gradient: str  # "through" the power iteration, or "stopped" at its vectors.

    # Do stage 1 and the discriminator get a sketch of the hole as an additional channel? Stage 2
    # gets it only if it also gets the mask.
    guided: bool = False

    width: int = 24  # Channels after the first gated convolution; even.
    discriminator_width: int = 64

    @property
    def refine_decoder_width(self) -> int:
        """Width of the stage-2 decoder, rounded to an even number, as its last layer halves it."""
        return 2 * round(self.width * self.refine_decoder_scale / 2)


OFFICIAL = Variant(
    name="official",
    padding="SAME",
    gated_rgb=False,
    refine_sees_mask=False,
    refine_decoder_scale=1.0,
    attention_activation=nn.relu,
    kernel_init=initializers.glorot_uniform(),
    nearest="align_corners",
    unavailable="zero_logit",
    overlap="constant",
    fused=True,
    mask_at_once=False,
    discriminator_padding="SAME",
    discriminator_kernel_init=initializers.glorot_uniform(),
    spectral_gradient="through",
)

MMAGIC = Variant(
    name="mmagic",
    padding="REFLECT",
    gated_rgb=True,
    refine_sees_mask=True,
    refine_decoder_scale=4 / 3,  # MMagic's config scales every part except this one by 3/4.
    attention_activation=nn.elu,
    kernel_init=initializers.normal(0.02),
    nearest="floor",
    unavailable="excluded",
    overlap="counted",
    fused=True,
    mask_at_once=False,
    discriminator_padding="SYMMETRIC",
    # Kaiming normal by fan-out, for a leaky ReLU of slope 0.2: gain 2 / (1 + 0.2^2).
    discriminator_kernel_init=initializers.variance_scaling(2 / 1.04, "fan_out", "normal"),
    spectral_gradient="stopped",
)

# Uses the weights of the TF1 release unchanged, but does not fuse attention scores.
NIPPONJO_TF = dataclasses.replace(OFFICIAL, name="nipponjo_tf", fused=False, mask_at_once=True)

# Has its own weights, fine-tuned from the TF1 release. Its discriminator stores kernels that are
# already divided by their norm, and stops the gradient there; our discriminator divides such a
# kernel by 1.
NIPPONJO = dataclasses.replace(
    OFFICIAL,
    name="nipponjo",
    padding="SYMMETRIC",
    nearest="floor",
    # PyTorch's Kaiming uniform by fan-out; the discriminator has PyTorch's default.
    kernel_init=initializers.variance_scaling(2.0, "fan_out", "uniform"),
    discriminator_padding="SYMMETRIC",
    discriminator_kernel_init=initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    spectral_gradient="stopped",
)

# Preserves the variance of unit normal features from layer to layer: E[elu(a)^2] E[sigmoid(b)^2] is
# 0.645 * 0.293 = 0.189, so kernels need 1 / sqrt(0.189) = 2.3 times the standard deviation
# 1 / sqrt(fan-in).
UNIT_VARIANCE = initializers.variance_scaling(2.3**2, "fan_in", "normal")

VARIANTS = {variant.name: variant for variant in (OFFICIAL, MMAGIC, NIPPONJO, NIPPONJO_TF)}


def make_variant(
    name: str, *, width: int = 24, discriminator_width: int = 64, guided: bool = False
) -> Variant:
    """Returns an architecture with the given widths.

    Args:
        name: One of `VARIANTS`.
        width: Channels after the first gated convolution; even, at least 2.
        discriminator_width: Channels after the first layer of the discriminator, at least 1.
        guided: Whether the networks take a sketch.

    Raises:
        UsageError: The name is unknown, or a width is not a positive even number.
    """
    if name not in VARIANTS:
        raise UsageError(f"Unknown architecture {name!r}; choose one of {', '.join(VARIANTS)}.")
    if width < 2 or width % 2 or discriminator_width < 1:
        raise UsageError(
            f"Width {width} and discriminator width {discriminator_width} are not possible: "
            "the width must be even and at least 2, the discriminator width at least 1."
        )
    return dataclasses.replace(
        VARIANTS[name], width=width, discriminator_width=discriminator_width, guided=guided
    )
