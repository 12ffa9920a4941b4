"""The published DeepFillv2 architectures: every difference, in one table.

OFFICIAL is the TF1 release of the paper's authors (JiahuiYu/generative_inpainting, v2.0.0);
MMAGIC is OpenMMLab's (MMagic 1.2.0), from which the published CelebA-HQ and Places tables come.
NIPPONJO and NIPPONJO_TF are those of nipponjo/deepfillv2-pytorch, the second for the release's
weights. A difference that is not a field here does not exist in the networks.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax

from deepfill_jax.errors import UsageError

initializers = jax.nn.initializers


@dataclasses.dataclass(frozen=True)
class Variant:
    """An architecture. `width` and `discriminator_width` scale it; the rest is the published form.

    Channels are counted after the gate, everywhere: the release's `cnum=48` is `width=24`.
    """

    name: str

    # Generator.
    padding: str  # "SAME", "SYMMETRIC" or "REFLECT", see layers.convolve.
    gated_rgb: bool  # Is the last convolution of each stage gated too?
    refine_sees_mask: bool  # Does stage 2 get the ones and mask channels as stage 1 does?
    refine_decoder_scale: float  # Width of the stage-2 decoder, in units of `width`.
    attention_activation: Callable[[jax.Array], jax.Array]  # Of the convolution before attention.
    kernel_init: initializers.Initializer

    # Contextual attention (models/attention.py).
    nearest: str  # Rule of its downscaling, see image.downsample_nearest.
    unavailable: str  # Keys with hole pixels: "zero_logit" or "excluded" from the softmax.
    overlap: str  # Divisor where pasted patches overlap: "constant" 4 or "counted".
    fused: bool  # Do neighbours of a query copy neighbours of its key?
    mask_at_once: bool  # Is the mask shrunk by 8 in one step, or by 4 and 2?

    # Discriminator.
    discriminator_padding: str  # "SAME", or "SYMMETRIC": the same number of zeros on both sides.
    discriminator_kernel_init: initializers.Initializer
    spectral_gradient: str  # "through" the power iteration, or "stopped" at its vectors.

    # Does stage 1 see a sketch of the hole beside the masked image, and the discriminator too? Not
    # stage 2, unless it sees the mask.
    guided: bool = False

    width: int = 24  # Channels after the first gated convolution; even.
    discriminator_width: int = 64

    @property
    def refine_decoder_width(self) -> int:
        """Width of the stage-2 decoder, rounded to an even number as its last layer halves it."""
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
    refine_decoder_scale=4 / 3,  # Their config slims every part but this by 3/4.
    attention_activation=nn.elu,
    kernel_init=initializers.normal(0.02),
    nearest="floor",
    unavailable="excluded",
    overlap="counted",
    fused=True,
    mask_at_once=False,
    discriminator_padding="SYMMETRIC",
    # Kaiming normal of the outputs, for leaky ReLU of slope 0.2: gain 2 / (1 + 0.2^2).
    discriminator_kernel_init=initializers.variance_scaling(2 / 1.04, "fan_out", "normal"),
    spectral_gradient="stopped",
)

# Takes the release's weights as they are, but leaves the fusion out.
NIPPONJO_TF = dataclasses.replace(OFFICIAL, name="nipponjo_tf", fused=False, mask_at_once=True)

# Has weights of its own, tuned from the release's. Its discriminator divides the stored kernels by
# their norm and lets no gradient through; with such a kernel, ours divides by 1.
NIPPONJO = dataclasses.replace(
    OFFICIAL,
    name="nipponjo",
    padding="SYMMETRIC",
    nearest="floor",
    # PyTorch's Kaiming uniform of the outputs, and its default.
    kernel_init=initializers.variance_scaling(2.0, "fan_out", "uniform"),
    discriminator_padding="SYMMETRIC",
    discriminator_kernel_init=initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    spectral_gradient="stopped",
)

# Keeps the variance of unit normal features from layer to layer: E[elu(a)^2] E[sigmoid(b)^2] is
# 0.645 * 0.293, so kernels need 1 / sqrt(0.189) = 2.3 times the deviation of 1 / sqrt(fan-in).
UNIT_VARIANCE = initializers.variance_scaling(2.3**2, "fan_in", "normal")

VARIANTS = {variant.name: variant for variant in (OFFICIAL, MMAGIC, NIPPONJO, NIPPONJO_TF)}


def make_variant(
    name: str, *, width: int = 24, discriminator_width: int = 64, guided: bool = False
) -> Variant:
    """Returns the variant called `name` at a width, guided by sketches or not.

    Raises:
        UsageError: The name is unknown, or a width is not a positive even number.
    """
    if name not in VARIANTS:
        raise UsageError(f"Unknown architecture {name!r}; choose one of {', '.join(VARIANTS)}.")
    if width < 2 or width % 2 or discriminator_width < 1:
        raise UsageError(
            f"Width {width} and discriminator width {discriminator_width} cannot be built: "
            "the first must be even and at least 2, the second at least 1."
        )
    return dataclasses.replace(
        VARIANTS[name], width=width, discriminator_width=discriminator_width, guided=guided
    )
