"""The generator: a coarse network fills the hole, a second one refines it (section 3.4).

Both work at a quarter of the picture's size in the middle, with dilated convolutions there. The
second has two branches, one of them with contextual attention. Features are [B, H, W, C]; the
tables below are read downwards.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from deepfill_jax import image
from deepfill_jax.models import attention
from deepfill_jax.models.layers import Conv, GatedConv
from deepfill_jax.models.variants import Variant

MULTIPLE = 8  # Sides must be multiples of it: two strides, and the attention's halving.

# Kernel size, stride, channels in units of the width.
COARSE_ENCODER = ((5, 1, 1), (3, 2, 2), (3, 1, 2), (3, 2, 4), (3, 1, 4), (3, 1, 4))
CONV_ENCODER = ((5, 1, 1), (3, 2, 1), (3, 1, 2), (3, 2, 2), (3, 1, 4), (3, 1, 4))
ATTENTION_ENCODER = ((5, 1, 1), (3, 2, 1), (3, 1, 2), (3, 2, 4), (3, 1, 4), (3, 1, 4))
DILATIONS = (2, 4, 8, 16)
# Doubled before it, channels in units of the width.
DECODER = ((False, 4), (False, 4), (True, 2), (False, 2), (True, 1), (False, 0.5))


class Prediction(NamedTuple):
    """What the generator returns, each [B, H, W, 3] float32 in [-1, 1]."""

    coarse: jax.Array  # Stage 1, the whole image.
    refined: jax.Array  # Stage 2, the whole image.
    completed: jax.Array  # `refined` inside the hole; known pixels are the input's, exactly.


class Generator(nn.Module):
    """Fills the hole of a masked image.

    With `remat`, the stages' activations are computed again in the backward pass
    instead of being kept: less memory, about a third more time. `attention_memory` bounds the bytes
    of attention's scores, see `attention.contextual_attention`.
    """

    variant: Variant
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    attention_memory: int | None = None

    @nn.compact
    def __call__(
        self, masked: jax.Array, mask: jax.Array, sketch: jax.Array | None = None
    ) -> Prediction:
        """Fills the hole.

        Args:
            masked: [B, H, W, 3] in [-1, 1], 0 in the hole; H and W are multiples of 8.
            mask: [B, H, W, 1], 1 in the hole.
            sketch: [B, H, W, 1], 1 on the lines in the hole; of guided variants only (section 3.3).
        """
        if (sketch is not None) != self.variant.guided:
            raise ValueError("A guided generator takes a sketch, and no other does.")
        height, width = masked.shape[1:3]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(f"Sides must be multiples of {MULTIPLE}, got {height}x{width}.")
        coarse_net, refine_net = CoarseNet, RefineNet
        if self.remat:
            coarse_net, refine_net = nn.remat(CoarseNet), nn.remat(RefineNet)
        coarse = coarse_net(self.variant, self.dtype, name="coarse")(masked, mask, sketch)
        pasted = image.composite(coarse, masked, mask)
        refine = refine_net(self.variant, self.dtype, self.attention_memory, name="refine")
        refined = refine(pasted, mask, sketch)
        return Prediction(coarse, refined, image.composite(refined, masked, mask))


class CoarseNet(nn.Module):
    """Stage 1: one encoder, dilated convolutions, one decoder."""

    variant: Variant
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, masked: jax.Array, mask: jax.Array, sketch: jax.Array | None) -> jax.Array:
        """[B, H, W, 3] and [B, H, W, 1], twice if guided -> [B, H, W, 3]."""
        conv = _gated_conv(self.variant, self.dtype)
        x = _encode(conv, _with_mask(masked, mask, sketch), COARSE_ENCODER, self.variant.width)
        x = _dilate(conv, x, 4 * self.variant.width)
        return Decoder(self.variant, self.variant.width, self.dtype, name="decoder")(x)


class RefineNet(nn.Module):
    """Stage 2: a branch that imagines, a branch that copies, one decoder for both."""

    variant: Variant
    dtype: jnp.dtype
    attention_memory: int | None

    @nn.compact
    def __call__(self, pasted: jax.Array, mask: jax.Array, sketch: jax.Array | None) -> jax.Array:
        """[B, H, W, 3] and [B, H, W, 1], twice if guided -> [B, H, W, 3]."""
        x = _with_mask(pasted, mask, sketch) if self.variant.refine_sees_mask else pasted
        imagined = ConvBranch(self.variant, self.dtype, name="conv_branch")(x)
        attend = AttentionBranch(
            self.variant, self.dtype, self.attention_memory, name="attention_branch"
        )
        copied = attend(x, mask)
        x = jnp.concatenate([imagined, copied], axis=-1)
        width = self.variant.refine_decoder_width
        return Decoder(self.variant, width, self.dtype, name="decoder")(x)


class ConvBranch(nn.Module):
    """An encoder and dilated convolutions: [B, H, W, C] -> [B, H/4, W/4, 4 * width]."""

    variant: Variant
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H/4, W/4, 4 * width]."""
        conv = _gated_conv(self.variant, self.dtype)
        x = _encode(conv, x, CONV_ENCODER, self.variant.width)
        return _dilate(conv, x, 4 * self.variant.width)


class AttentionBranch(nn.Module):
    """An encoder, contextual attention on its output, two convolutions.

    The attention's [B, h, w, 2] offsets are sown as "offsets" into "intermediates".
    """

    variant: Variant
    dtype: jnp.dtype
    attention_memory: int | None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """[B, H, W, C] and [B, H, W, 1] -> [B, H/4, W/4, 4 * width]."""
        variant = self.variant
        conv = _gated_conv(variant, self.dtype)
        last = {"activation": variant.attention_activation}
        x = _encode(conv, x, ATTENTION_ENCODER, variant.width, last=last)
        if variant.mask_at_once:  # By 8; the attention's halving undoes the doubling, exactly.
            mask = image.upsample2x(image.downsample_nearest(mask, 8, nearest=variant.nearest))
        else:
            mask = image.downsample_nearest(mask, 4, nearest=variant.nearest)
        attended, offsets = attention.contextual_attention(
            x,
            x,
            mask,
            nearest=variant.nearest,
            unavailable=variant.unavailable,
            overlap=variant.overlap,
            fused=variant.fused,
            memory=self.attention_memory,
        )
        self.sow("intermediates", "offsets", offsets)
        x = conv(4 * variant.width, name="attended1")(attended)
        return conv(4 * variant.width, name="attended2")(x)


class Decoder(nn.Module):
    """Back to the picture's size and to RGB."""

    variant: Variant
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H/4, W/4, C] -> float32 [B, H, W, 3] in [-1, 1]."""
        conv = _gated_conv(self.variant, self.dtype)
        for index, (upsampled2x, multiple) in enumerate(DECODER, start=1):
            x = conv(int(multiple * self.width), upsampled2x=upsampled2x, name=f"decode{index}")(x)
        if self.variant.gated_rgb:
            to_rgb = partial(conv, activation=lambda value: value)
        else:
            to_rgb = _conv(Conv, self.variant, self.dtype)
        return jnp.tanh(to_rgb(3, name="to_rgb")(x).astype(jnp.float32))


def _conv(layer, variant, dtype):
    return partial(layer, padding=variant.padding, kernel_init=variant.kernel_init, dtype=dtype)


_gated_conv = partial(_conv, GatedConv)


def _with_mask(x: jax.Array, mask: jax.Array, sketch: jax.Array | None) -> jax.Array:
    """Appends the sketch, a channel of ones, which shows padding where it is zeros, and the mask.

    In the TF1 release's order, where the sketch is the picture's fourth channel.
    """
    sketches = [] if sketch is None else [sketch]
    return jnp.concatenate([x, *sketches, jnp.ones_like(mask), mask], axis=-1)


def _encode(conv, x, table, width, *, last=None):
    """Runs an encoder's table; `last` are more arguments for its last convolution."""
    for index, (kernel_size, stride, multiple) in enumerate(table, start=1):
        extra = last if last and index == len(table) else {}
        x = conv(multiple * width, kernel_size, stride, name=f"encode{index}", **extra)(x)
    return x


def _dilate(conv, x, features):
    for dilation in DILATIONS:
        x = conv(features, dilation=dilation, name=f"dilate{dilation}")(x)
    return x
