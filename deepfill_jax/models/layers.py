"""Convolutions of the networks: plain, gated and spectrally normalised.

Feature maps are [B, H, W, C]; kernels [height, width, in, out]. Parameters are float32, the
arithmetic runs in `dtype`.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deepfill_jax.models import cpu_convolution
from deepfill_jax.models.cpu_convolution import DIMENSIONS

# After 2x nearest upsampling, the kernel's three rows cover input rows (-1, 0, 0) at even output
# rows and (0, 0, 1) at odd ones: [parity, input row, kernel row].
ROWS_UNDER = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)

EPSILON = 1e-12  # Of torch.nn.utils.spectral_norm and of the TF1 release.


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
    """Convolves [B, H, W, I] with a square kernel [k, k, I, O] to [B, ceil(H / stride), ..., O].

    Args:
        x: Feature map.
        kernel: Odd-sized kernel.
        bias: [O].
        stride: In pixels of `x`.
        dilation: Distance of the kernel's taps, in pixels of `x`.
        padding: "SAME" pads zeros by TF's and XLA's rule: with a stride more after than before,
            so that the grid of an even-sized map starts half a step later than with the other two.
            "SYMMETRIC" pads equally many zeros on both sides, "REFLECT" mirrors the map without
            repeating its edge; both are PyTorch's `dilation * (k - 1) / 2`.
        dtype: Type of the arithmetic and the result.
    """
    if padding != "SAME":
        reach = dilation * (kernel.shape[0] - 1) // 2
        mode = {"SYMMETRIC": "constant", "REFLECT": "reflect"}[padding]
        x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode=mode)
        padding = "VALID"
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    y = None
    if jax.default_backend() == "cpu":
        y = cpu_convolution.convolve(x, kernel, stride=stride, dilation=dilation, padding=padding)
    if y is None:
        y = lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding=padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=DIMENSIONS,
        )
    # Added in float32: the bias's gradient sums over all pixels, of which bfloat16 can count few.
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
    """Upsamples [B, H, W, I] 2x by repeating pixels, and convolves with [3, 3, I, O].

    The result, [B, 2H, 2W, O], equals `pointwise(convolve(image.upsample2x(x), ...))` and takes
    four of its nine multiplications: the kernel's three rows cover only two rows of `x`, so each of
    the four output pixels of an input pixel is a convolution with 2x2 taps, sums of the kernel's.
    """
    batch, height, width, _ = x.shape
    taps = jnp.einsum("aiy,bjx,yxcd->abijcd", ROWS_UNDER, ROWS_UNDER, kernel).astype(dtype)
    x = x.astype(dtype)
    # Padding the upsampled map by one pixel, with its mirror image or with zeros, equals padding
    # the map by its own edge or by zeros and upsampling it.
    if padding == "REFLECT":
        # By hand, as XLA's partitioner would send gradients of jnp.pad's edges between devices.
        x = jnp.concatenate([x[:, :1], x, x[:, -1:]], axis=1)
        x = jnp.concatenate([x[:, :, :1], x, x[:, :, -1:]], axis=2)
    else:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def pixels(down: int, right: int) -> jax.Array:
        """One in four: [B, H, W, O]."""
        seen = x[:, down : down + height + 1, right : right + width + 1]
        y = lax.conv_general_dilated(
            seen,
            taps[down, right],
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=DIMENSIONS,
        )
        # Here, as a gate halves what is to be laid out.
        return pointwise((y + bias).astype(dtype))

    rows = [jnp.stack([pixels(down, right) for right in (0, 1)], axis=3) for down in (0, 1)]
    y = jnp.stack(rows, axis=2)  # [B, H, 2, W, 2, O]
    return y.reshape(batch, 2 * height, 2 * width, -1)


class Conv(nn.Module):
    """Plain convolution with a bias, see `convolve`."""

    features: int  # Channels out.
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    padding: str = "SAME"
    kernel_init: jax.nn.initializers.Initializer = jax.nn.initializers.glorot_uniform()
    dtype: jnp.dtype = jnp.float32

    def kernel_and_bias(self, channels_in: int, channels_out: int) -> tuple[jax.Array, jax.Array]:
        """Creates or looks up the two parameters."""
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
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        return self.convolve(x, *self.kernel_and_bias(x.shape[-1], self.features))


class GatedConv(Conv):
    """Convolution that learns where to look: activation(value) * sigmoid(gate), per pixel, channel.

    Section 3.1 of the paper. `features` counts channels after the gate; the kernel makes twice as
    many, values first, gates second, in both references.
    """

    activation: Callable[[jax.Array], jax.Array] = nn.elu
    upsampled2x: bool = False  # Is the map upsampled2x first?

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features], or [B, 2H, 2W, features]."""
        kernel, bias = self.kernel_and_bias(x.shape[-1], 2 * self.features)

        def gated(y: jax.Array) -> jax.Array:
            value, gate = jnp.split(y, 2, axis=-1)
            return self.activation(value) * nn.sigmoid(gate)

        if self.upsampled2x:
            options = {"padding": self.padding, "dtype": self.dtype}
            return convolve_upsampled2x(x, kernel, bias, pointwise=gated, **options)
        return gated(self.convolve(x, kernel, bias))


class SNConv(Conv):
    """Convolution with its kernel divided by an estimate of the kernel's largest singular value.

    Spectral normalisation (Miyato et al., ICLR 2018, https://arxiv.org/abs/1802.05957) of the
    kernel as a matrix [k * k * in, out]; the bias is left alone. The stored kernel is the raw one.
    The vectors of the power iteration live in the collection "spectral": u [out], v [k * k * in].
    """

    gradient: str = "stopped"  # Variant.spectral_gradient.

    @nn.compact
    def __call__(self, x: jax.Array, *, update_spectral: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features].

        Args:
            x: Feature map.
            update_spectral: Make one power iteration first, and store its vectors.
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
    """Matrix product in float32 also on GPUs, whose default rounds factors to 10 bits."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _normalise(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), EPSILON)
