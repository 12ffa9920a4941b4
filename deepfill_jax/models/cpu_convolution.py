"""Faster algorithms for some convolutions on CPUs.

XLA's convolution for CPUs is as fast as its matrix product only for wide maps with many channels.
`layers` uses this module for the cases where an algorithm needs fewer operations or larger
matrices. The results equal XLA's up to rounding (tests/test_cpu_convolution.py);
benchmarks/README.md lists the speed-ups. Programs for other devices contain XLA's convolutions: on
GPUs, cuDNN chooses among its own algorithms.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Padding = tuple[int, int]  # Pixels before and after a map, along one side.
# For maps with sides up to this number of pixels, XLA's gradient of a strided convolution with
# respect to its input can take 40 times as long as the equivalent matrix product.
MAX_PATCHES_SIDE = 20
MAX_NARROW_FEATURES = 6  # Output channels: RGB with gates.
# Input times output channels from which `_convolve_tiles` saves more than its additions cost.
MIN_TILED_CHANNELS = 24 * 48
TILE_ROWS = 4  # Output rows that `_convolve_tiles` computes together.
MAX_TILED_ROWS = 1.25  # Limit of the rows that `_convolve_tiles` computes, per row of the result.
# Points at which the polynomials of rows and kernel are evaluated. Rounding errors are twice those
# of XLA's convolution; with the usual 0, 1, -1, 2, -2 they are three times as large.
EVALUATION_POINTS = np.array([0, 2 / 3, -2 / 3, 3 / 2, -3 / 2])
# After 2x nearest upsampling, the kernel's three rows cover input rows (-1, 0, 0) at even output
# rows and (0, 0, 1) at odd ones: [parity, input row, kernel row].
UPSAMPLED_TAPS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


def algorithm(
    x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int, padding: str
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Returns an algorithm for this convolution that is faster than XLA's on CPUs, if there is one.

    Args:
        x: [B, H, W, I].
        kernel: [k, k, I, O].
        stride: In pixels of `x`.
        dilation: Distance between kernel taps, in pixels of `x`.
        padding: "SAME" or "VALID".

    Returns:
        A function of `x` and `kernel` that convolves like `layers.convolve`, without bias; None if
        XLA's convolution is the fastest.
    """
    size, _, channels, features = kernel.shape
    height, width = x.shape[1:3]
    # When a network is exported for all sizes, the sides are symbols, not integers.
    if not (isinstance(height, int) and isinstance(width, int)):
        return None
    reach = dilation * (size - 1) + 1
    pads = lax.padtype_to_pads((height, width), (reach, reach), (stride, stride), padding)
    margins = pads[0], pads[1]
    if stride > 1 and max(height, width) <= MAX_PATCHES_SIDE:
        return lambda x, kernel: _convolve_patches(x, kernel, stride, margins)
    # The other algorithms add partial sums, which would be rounded to half precision.
    if stride > 1 or x.dtype != jnp.float32:
        return None
    if dilation == 1 and features <= MAX_NARROW_FEATURES:
        return lambda x, kernel: _convolve_to_few(x, kernel, margins)
    rows_out = height + sum(margins[0]) - 2 * dilation
    rows_computed = _tiles(rows_out, dilation) * TILE_ROWS * dilation
    wide = channels * features >= MIN_TILED_CHANNELS
    if size == 3 and wide and rows_computed <= MAX_TILED_ROWS * rows_out:
        return lambda x, kernel: _convolve_tiles(x, kernel, dilation, margins)
    return None


def convolve_upsampled2x(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    padding: str,
    dtype: jnp.dtype,
    pointwise: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Computes `layers.convolve_upsampled2x` with four ninths of its multiplications.

    The kernel's three rows cover only two rows of `x`, so each of the four output pixels per input
    pixel is a convolution with 2x2 taps, which are sums of kernel taps.
    """
    batch, height, width, _ = x.shape
    taps = jnp.einsum("aiy,bjx,yxcd->abijcd", UPSAMPLED_TAPS, UPSAMPLED_TAPS, kernel).astype(dtype)
    x = x.astype(dtype)
    # Reflecting the upsampled map by one pixel equals repeating the edge of the map before
    # upsampling. Zero padding likewise can be applied before upsampling.
    if padding == "REFLECT":
        # jnp.pad is not used here, because XLA's partitioner would send the gradients of its edges
        # between devices.
        x = jnp.concatenate([x[:, :1], x, x[:, -1:]], axis=1)
        x = jnp.concatenate([x[:, :, :1], x, x[:, :, -1:]], axis=2)
    else:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def pixels(down: int, right: int) -> jax.Array:
        """Computes the output pixels of one parity in each direction: [B, H, W, O]."""
        window = x[:, down : down + height + 1, right : right + width + 1]
        y = lax.conv_general_dilated(
            window,
            taps[down, right],
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=DIMENSIONS,
        )
        # `pointwise` comes before the interleaving below, because a gate halves the channels.
        return pointwise((y + bias).astype(dtype))

    rows = [jnp.stack([pixels(down, right) for right in (0, 1)], axis=3) for down in (0, 1)]
    y = jnp.stack(rows, axis=2)  # [B, H, 2, W, 2, O]
    return y.reshape(batch, 2 * height, 2 * width, -1)


def _tiles(rows: int, dilation: int) -> int:
    """Returns the number of tiles of `TILE_ROWS * dilation` rows that cover `rows`."""
    return -(-rows // (TILE_ROWS * dilation))


def _convolve_patches(
    x: jax.Array, kernel: jax.Array, stride: int, margins: Sequence[Padding]
) -> jax.Array:
    """Convolves by one matrix product of all patches of `x` with the kernel (im2col)."""
    size, _, _, features = kernel.shape
    x = jnp.pad(x, ((0, 0), *margins, (0, 0)))
    # One shifted and strided copy of the map per kernel tap.
    shifted = [
        x[:, i : x.shape[1] - size + 1 + i : stride, j : x.shape[2] - size + 1 + j : stride]
        for i in range(size)
        for j in range(size)
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    # Like XLA's convolution, this adds in float32 and rounds the sum to bfloat16.
    y = jnp.matmul(patches, kernel.reshape(-1, features), preferred_element_type=jnp.float32)
    return y.astype(x.dtype)


def _convolve_to_few(x: jax.Array, kernel: jax.Array, margins: Sequence[Padding]) -> jax.Array:
    """Convolves along rows with all kernel rows at once, and adds up the shifted results.

    The kernel rows become output channels, which makes the matrix product wider.
    """
    size, _, channels, features = kernel.shape
    rows, columns = margins
    row_sums = _convolve_rows(
        jnp.pad(x, ((0, 0), rows, (0, 0), (0, 0))),
        kernel.transpose(1, 2, 0, 3).reshape(1, size, channels, size * features),
        columns,
    )
    height = row_sums.shape[1] - size + 1
    by_kernel_row = jnp.split(row_sums, size, axis=-1)
    return _sum(y[:, i : i + height] for i, y in enumerate(by_kernel_row))


# Checkpointing keeps `x` for the backward pass instead of its linear combinations, which are one
# and a half times as large.
@functools.partial(jax.checkpoint, static_argnums=(2, 3))
def _convolve_tiles(
    x: jax.Array, kernel: jax.Array, dilation: int, margins: tuple[Padding, Padding]
) -> jax.Array:
    """Computes four output rows with six multiplications instead of twelve (Toom-Cook).

    The rows of the map and of the kernel are coefficients of polynomials in the vertical direction.
    Their product is determined by its values at six points. A "multiplication" here is a
    convolution along rows. Source: Winograd, "Arithmetic Complexity of Computations" (1980).
    Lavin & Gray, https://arxiv.org/abs/1509.09308, use it for networks in both directions, which
    needs more additions and has larger rounding errors.
    """
    batch, rows, _, channels = x.shape
    ((above, below), columns), features = margins, kernel.shape[-1]
    height = above + rows + below - 2 * dilation
    tiles = _tiles(height, dilation)
    below = (tiles + 1) * TILE_ROWS * dilation - above - rows
    x = jnp.pad(x, ((0, 0), (above, below), (0, 0), (0, 0)))
    # Input row i of a tile lies i * dilation rows below the first one. The last two input rows of
    # a tile belong to the next tile.
    x = x.reshape(batch, tiles + 1, TILE_ROWS, dilation, -1, channels)
    rows_in = [
        x[:, i // TILE_ROWS : tiles + i // TILE_ROWS, i % TILE_ROWS] for i in range(len(FROM_ROWS))
    ]
    products = [
        _convolve_rows(
            _combine(weights, rows_in).reshape(batch, tiles * dilation, -1, channels),
            _combine(kernel_weights, list(kernel))[np.newaxis],
            columns,
            dilation,
        )
        for weights, kernel_weights in zip(FROM_ROWS, FROM_KERNEL, strict=True)
    ]
    rows_out = [
        _combine(weights, products).reshape(batch, tiles, dilation, -1, features)
        for weights in TO_ROWS
    ]
    y = jnp.stack(rows_out, axis=2)
    return y.reshape(batch, tiles * TILE_ROWS * dilation, -1, features)[:, :height]


def _convolve_rows(
    x: jax.Array, kernel: jax.Array, columns: Padding, dilation: int = 1
) -> jax.Array:
    """Convolves with a kernel of one row; `columns` is the padding on the left and right."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=((0, 0), columns),
        rhs_dilation=(1, dilation),
        dimension_numbers=DIMENSIONS,
    )


def _combine(weights: np.ndarray, terms: list[jax.Array]) -> jax.Array:
    return _sum(float(weight) * term for weight, term in zip(weights, terms, strict=True) if weight)


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)


def _toom_cook(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the matrices of the Toom-Cook algorithm.

    Polynomials are evaluated at `points` and, last, at infinity, where the value is the leading
    coefficient.

    Returns:
        Weights [points + 1, rows in] of the map's rows, [points + 1, size] of the kernel's rows,
        and [rows out, points + 1] of the products.
    """
    count = len(points) + 1
    rows_out = count - size + 1
    from_rows, from_kernel = np.zeros((count, count)), np.zeros((count, size))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        from_rows[i, :-1] = np.poly(others)[::-1]
        from_kernel[i] = point ** np.arange(size) / np.prod(point - others)
    from_rows[-1] = np.poly(points)[::-1]
    from_kernel[-1, -1] = 1
    to_rows = np.vander(points, rows_out, increasing=True).T
    to_rows = np.concatenate([to_rows, np.eye(rows_out)[:, -1:]], axis=1)
    return from_rows, from_kernel, to_rows


FROM_ROWS, FROM_KERNEL, TO_ROWS = _toom_cook(EVALUATION_POINTS, size=3)
