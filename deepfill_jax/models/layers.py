"""Convolution layers: plain, gated and spectrally normalised.

Feature maps are [B, H, W, C]; kernels are [height, width, in, out]. Parameters are float32; the
arithmetic runs in `dtype`.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from deepfill_jax import compiler, image
from deepfill_jax.models import cpu_convolution
from deepfill_jax.models.cpu_convolution import DIMENSIONS

# A function of a map that acts on each of its values alone.
Activation = Callable[[jax.Array], jax.Array]

# Lower bound of a norm, as in torch.nn.utils.spectral_norm and in the TF1 release.
EPSILON = 1e-12


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: str = "SAME",
    dtype: jnp.dtype = jnp.float32,
) -> jax.Array:
    """Convolves a feature map with a square kernel and adds a bias.

    Args:
        x: Feature map [B, H, W, I].
        kernel: [k, k, I, O] with odd k.
        bias: [O].
        stride: In pixels of `x`.
        dilation: Distance between kernel taps, in pixels of `x`.
        padding: "SAME" pads with zeros by the rule of TensorFlow and XLA: with a stride, more
            after than before, so the grid of an even-sized map starts half a step later than with
            the other two modes. "SYMMETRIC" pads with equally many zeros on both sides. "REFLECT"
            mirrors the map without repeating its edge. The last two pad by PyTorch's
            `dilation * (k - 1) / 2`.
        dtype: Type of the arithmetic and the result.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), O].
    """
    if padding != "SAME":
        reach = dilation * (kernel.shape[0] - 1) // 2
        mode = {"SYMMETRIC": "constant", "REFLECT": "reflect"}[padding]
        margins = (reach, reach), (reach, reach), (0, 0)
        # Per image, because JAX 0.7 cannot reflect a batch whose size is unknown (during export).
        x = jax.vmap(partial(jnp.pad, pad_width=margins, mode=mode))(x)
        padding = "VALID"
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    plain = partial(
        lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=DIMENSIONS,
    )
    fast = cpu_convolution.algorithm(x, kernel, stride=stride, dilation=dilation, padding=padding)
    convolved = compiler.by_device(cpu=fast, default=plain) if fast else plain
    y = convolved(x, kernel)
    # The bias is added in float32, because its gradient is a sum over all pixels, for which
    # bfloat16 has too few digits.
    return (y + bias).astype(dtype)


def convolve_upsampled2x(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    padding: str = "SAME",
    dtype: jnp.dtype = jnp.float32,
    pointwise: Callable[[jax.Array], jax.Array] = lambda y: y,
) -> jax.Array:
    """Upsamples a map 2x by repeating pixels, and convolves it with a 3x3 kernel.

    On CPUs, `cpu_convolution.convolve_upsampled2x` needs four ninths of the multiplications.

    Args:
        x: Feature map [B, H, W, I].
        kernel: [3, 3, I, O].
        bias: [O].
        padding: See `convolve`.
        dtype: Type of the arithmetic and the result.
        pointwise: Function of a map [B, H, W, O] that acts on each pixel alone; it may change the
            number of channels.

    Returns:
        [B, 2H, 2W, O].
    """
    fast = partial(
        cpu_convolution.convolve_upsampled2x, padding=padding, dtype=dtype, pointwise=pointwise
    )

    def plain(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        with compiler.use_form("default"):  # The algorithms for CPUs would be traced in vain.
            return pointwise(
                convolve(image.upsample2x(x), kernel, bias, padding=padding, dtype=dtype)
            )

    return compiler.by_device(cpu=fast, default=plain)(x, kernel, bias)


class Conv(nn.Module):
    """Plain convolution with a bias, see `convolve`."""

    features: int  # Output channels.
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    padding: str = "SAME"
    kernel_init: jax.nn.initializers.Initializer = jax.nn.initializers.glorot_uniform()
    dtype: jnp.dtype = jnp.float32

    def kernel_and_bias(self, channels_in: int, channels_out: int) -> tuple[jax.Array, jax.Array]:
        """Returns the parameters "kernel" [k, k, in, out] and "bias" [out]."""
        shape = (self.kernel_size, self.kernel_size, channels_in, channels_out)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", jax.nn.initializers.zeros, (channels_out,), jnp.float32)
        return kernel, bias

    def convolve(self, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        """Convolves with this layer's stride, dilation, padding and dtype."""
        return convolve(
            x,
            kernel,
            bias,
            stride=self.stride,
            dilation=self.dilation,
            padding=self.padding,
            dtype=self.dtype,
        )

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        return self.convolve(x, *self.kernel_and_bias(x.shape[-1], self.features))


class GatedConv(Conv):
    """Gated convolution: activation(value) * sigmoid(gate), for each pixel and channel.

    Section 3.1 of the paper. `features` is the number of channels after gating. The kernel has
    twice as many outputs, values first and gates second, as in both references.
    """

    activation: Activation = nn.elu
    upsampled2x: bool = False  # Is the map upsampled 2x before the convolution?

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features], or [B, 2H, 2W, features]."""
        kernel, bias = self.kernel_and_bias(x.shape[-1], 2 * self.features)

        def gated(y: jax.Array) -> jax.Array:
            value, gate = jnp.split(y, 2, axis=-1)
            return self.activation(value) * nn.sigmoid(gate)

        if self.upsampled2x:
            return convolve_upsampled2x(
                x, kernel, bias, padding=self.padding, dtype=self.dtype, pointwise=gated
            )
        return gated(self.convolve(x, kernel, bias))


class SNConv(Conv):
    """Convolution with spectral normalisation (Miyato et al., ICLR 2018).

    Source: https://arxiv.org/abs/1802.05957. The kernel, as a matrix [k * k * in, out], is divided
    by an estimate of its largest singular value. The bias is not normalised. The stored kernel is
    the one before normalisation. The vectors of the power iteration are in the collection
    "spectral": u [out] and v [k * k * in].
    """

    gradient: str = "stopped"  # Variant.spectral_gradient.

    @nn.compact
    def __call__(self, x: jax.Array, *, update_spectral: bool = False) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features].

        Args:
            x: Feature map.
            update_spectral: Run one power iteration first, and store its vectors.
        """
        kernel, bias = self.kernel_and_bias(x.shape[-1], self.features)
        matrix = kernel.reshape(-1, self.features)
        u = self.variable("spectral", "u", self._random_direction)
        v = self.variable("spectral", "v", lambda: _normalise(_product(matrix, u.value)))
        left, right = v.value, u.value
        if update_spectral:
            iterated = matrix if self.gradient == "through" else lax.stop_gradient(matrix)
            left = _normalise(_product(iterated, right))
            right = _normalise(_product(left, iterated))
            u.value, v.value = right, left
        sigma = _product(_product(left, matrix), right)
        return self.convolve(x, kernel / sigma, bias)

    def _random_direction(self) -> jax.Array:
        return _normalise(jax.random.normal(self.make_rng("params"), (self.features,)))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiplies matrices in float32, also on GPUs, which round factors to 10 bits by default."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _normalise(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), EPSILON)
