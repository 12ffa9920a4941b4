"""The generator: a coarse network fills the hole, a second network refines it (section 3.4).

Both are encoder-decoder networks with dilated convolutions at a quarter of the image's size. The
refinement network has two branches, one of them with contextual attention. Features are
[B, H, W, C]. Each table below lists its layers from first to last.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from deepfill_jax import image
from deepfill_jax.errors import UsageError
from deepfill_jax.image import Array
from deepfill_jax.models import attention
from deepfill_jax.models.layers import Activation, Conv, GatedConv
from deepfill_jax.models.variants import Variant

# Image sides must be multiples of this number of pixels: two strided layers and the attention
# halve the map three times.
MULTIPLE = 8

# Columns: kernel size, stride, channels in units of the width.
EncoderTable = Sequence[tuple[int, int, int]]
COARSE_ENCODER = ((5, 1, 1), (3, 2, 2), (3, 1, 2), (3, 2, 4), (3, 1, 4), (3, 1, 4))
CONV_ENCODER = ((5, 1, 1), (3, 2, 1), (3, 1, 2), (3, 2, 2), (3, 1, 4), (3, 1, 4))
ATTENTION_ENCODER = ((5, 1, 1), (3, 2, 1), (3, 1, 2), (3, 2, 4), (3, 1, 4), (3, 1, 4))
DILATIONS = (2, 4, 8, 16)
# Columns: is the map upsampled 2x first, channels in units of the width.
DECODER = ((False, 4), (False, 4), (True, 2), (False, 2), (True, 1), (False, 0.5))


def check_image_size(side: int, *, name: str) -> None:
    """Checks that the network takes square images of this side, in pixels.

    Raises:
        UsageError: The side is not a multiple of `MULTIPLE`. The message names the key and suggests
            a value.
    """
    if side < MULTIPLE or side % MULTIPLE:
        nearest = max(MULTIPLE, side // MULTIPLE * MULTIPLE)
        raise UsageError(f"{name}={side} must be a multiple of {MULTIPLE}; try {nearest}.")


class Prediction(NamedTuple, Generic[Array]):
    """Images predicted by the generator, each [B, H, W, 3] float32 in [-1, 1].

    The arrays are jax.Array, or np.ndarray in the result of `Inpainter.predict`.
    """

    coarse: Array  # Output of stage 1 for the whole image.
    refined: Array  # Output of stage 2 for the whole image.
    completed: Array  # `refined` inside the hole, the input's exact pixels outside it.


class Generator(nn.Module):
    """Two-stage inpainting network.

    With `remat`, the activations of both stages are recomputed in the backward pass instead of
    being stored. This needs less memory and about a third more time. `attention_memory` limits the
    memory for attention scores in bytes, see `attention.contextual_attention`.
    """

    variant: Variant
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    attention_memory: int | None = None

    @nn.compact
    def __call__(
        self, masked: jax.Array, mask: jax.Array, sketch: jax.Array | None = None
    ) -> Prediction[jax.Array]:
        """Fills the hole.

        Args:
            masked: [B, H, W, 3] in [-1, 1], 0 in the hole; H and W are multiples of 8.
            mask: [B, H, W, 1], 1 in the hole.
            sketch: [B, H, W, 1], 1 on the lines in the hole; only for sketch-guided variants
                (section 3.3).

        Raises:
            ValueError: A side is not a multiple of 8, the variant is sketch-guided and `sketch` is
                None, or the other way round.
        """
        if (sketch is not None) != self.variant.guided:
            raise ValueError("A sketch is required if and only if the generator is guided.")
        height, width = masked.shape[1:3]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(f"Image sides must be multiples of {MULTIPLE}, got {height}x{width}.")
        coarse_net, refine_net = CoarseNet, RefineNet
        if self.remat:
            coarse_net, refine_net = nn.remat(CoarseNet), nn.remat(RefineNet)
        coarse = coarse_net(self.variant, self.dtype, name="coarse")(masked, mask, sketch)
        pasted = image.composite(coarse, masked, mask)
        refine = refine_net(self.variant, self.dtype, self.attention_memory, name="refine")
        refined = refine(pasted, mask, sketch)
        return Prediction(coarse, refined, image.composite(refined, masked, mask))


def predict(generator: Generator, params: Any, *inputs: jax.Array | None) -> Prediction[jax.Array]:
    """Applies a generator with these parameters to the inputs of `Generator.__call__`."""
    # Only with `mutable` does `apply` also return variables, as its annotation allows.
    return cast(Prediction[jax.Array], generator.apply({"params": params}, *inputs))


class CoarseNet(nn.Module):
    """Stage 1: an encoder, dilated convolutions and a decoder."""

    variant: Variant
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, masked: jax.Array, mask: jax.Array, sketch: jax.Array | None) -> jax.Array:
        """Maps an image [B, H, W, 3], a mask and a sketch [B, H, W, 1] to [B, H, W, 3]."""
        conv = _gated_conv(self.variant, self.dtype)
        x = _encode(conv, _with_mask(masked, mask, sketch), COARSE_ENCODER, self.variant.width)
        x = _dilate(conv, x, 4 * self.variant.width)
        return Decoder(self.variant, self.variant.width, self.dtype, name="decoder")(x)


class RefineNet(nn.Module):
    """Stage 2: a convolutional branch and an attention branch, with one decoder for both."""

    variant: Variant
    dtype: jnp.dtype
    attention_memory: int | None

    @nn.compact
    def __call__(self, pasted: jax.Array, mask: jax.Array, sketch: jax.Array | None) -> jax.Array:
        """Maps an image [B, H, W, 3], a mask and a sketch [B, H, W, 1] to [B, H, W, 3]."""
        x = _with_mask(pasted, mask, sketch) if self.variant.refine_sees_mask else pasted
        convolved = ConvBranch(self.variant, self.dtype, name="conv_branch")(x)
        attend = AttentionBranch(
            self.variant, self.dtype, self.attention_memory, name="attention_branch"
        )
        attended = attend(x, mask)
        x = jnp.concatenate([convolved, attended], axis=-1)
        width = self.variant.refine_decoder_width
        return Decoder(self.variant, width, self.dtype, name="decoder")(x)


class ConvBranch(nn.Module):
    """Convolutional branch of stage 2: an encoder and dilated convolutions."""

    variant: Variant
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H/4, W/4, 4 * width]."""
        conv = _gated_conv(self.variant, self.dtype)
        x = _encode(conv, x, CONV_ENCODER, self.variant.width)
        return _dilate(conv, x, 4 * self.variant.width)


class AttentionBranch(nn.Module):
    """Attention branch of stage 2: an encoder, contextual attention and two convolutions.

    The attention's offsets, int32 [B, h, w, 2], are sown as "offsets" into the collection
    "intermediates".
    """

    variant: Variant
    dtype: jnp.dtype
    attention_memory: int | None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] and a mask [B, H, W, 1] to [B, H/4, W/4, 4 * width]."""
        variant = self.variant
        conv = _gated_conv(variant, self.dtype)
        last = variant.attention_activation
        x = _encode(conv, x, ATTENTION_ENCODER, variant.width, last=last)
        if variant.mask_at_once:
            # The 2x downsampling inside the attention undoes this upsampling exactly.
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
    """Upsamples features to an RGB image of the original size."""

    variant: Variant
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H/4, W/4, C] to float32 [B, H, W, 3] in [-1, 1]."""
        conv = _gated_conv(self.variant, self.dtype)
        for index, (upsampled2x, multiple) in enumerate(DECODER, start=1):
            x = conv(int(multiple * self.width), upsampled2x=upsampled2x, name=f"decode{index}")(x)
        if self.variant.gated_rgb:
            to_rgb = partial(conv, activation=lambda value: value)
        else:
            to_rgb = _conv(Conv, self.variant, self.dtype)
        return jnp.tanh(to_rgb(3, name="to_rgb")(x).astype(jnp.float32))


def _conv(layer: type[Conv], variant: Variant, dtype: jnp.dtype) -> partial[Conv]:
    """Returns a constructor of layers with the settings of an architecture."""
    return partial(layer, padding=variant.padding, kernel_init=variant.kernel_init, dtype=dtype)


_gated_conv = partial(_conv, GatedConv)


def _with_mask(x: jax.Array, mask: jax.Array, sketch: jax.Array | None) -> jax.Array:
    """Appends the sketch, a channel of ones and the mask to an image.

    The channel of ones marks the zero padding at the image's border. The order is that of the TF1
    release, where the sketch is the fourth channel of the image.
    """
    sketches = [] if sketch is None else [sketch]
    return jnp.concatenate([x, *sketches, jnp.ones_like(mask), mask], axis=-1)


def _encode(
    conv: partial[Conv], x: jax.Array, table: EncoderTable, width: int, *, last: Activation = nn.elu
) -> jax.Array:
    """Applies the layers of an encoder table; `last` is the activation of the last layer."""
    for index, (kernel_size, stride, multiple) in enumerate(table, start=1):
        activation = last if index == len(table) else nn.elu
        name = f"encode{index}"
        x = conv(multiple * width, kernel_size, stride, activation=activation, name=name)(x)
    return x


def _dilate(conv: partial[Conv], x: jax.Array, features: int) -> jax.Array:
    for dilation in DILATIONS:
        x = conv(features, dilation=dilation, name=f"dilate{dilation}")(x)
    return x
