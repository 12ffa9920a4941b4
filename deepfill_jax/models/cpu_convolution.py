"""Convolutions as a CPU computes them faster: other sums of the same products.

XLA's own convolution for CPUs runs at the rate of its matrix products where a map is wide and has
many channels. `layers.convolve` asks here first for the cases where less can be done, or done in a
better shape. All are equal to the plain form but for rounding (tests/test_cpu_convolution.py); what
each gains is in benchmarks/README.md. A GPU's library has forms of its own.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Up to this many pixels a side, the gradient of a strided convolution by its input can take 40
# times as long as the product of matrices that it is.
SMALL = 20
FEW = 6  # Channels out: RGB with gates.
MANY = 24 * 48  # Channels in times out that outweigh the additions of `_convolve_tiles`.
TILE = 4  # Rows computed together there.
WASTE = 1.25  # How many times as many rows as there are may be computed there.
# Where the polynomials of rows and kernel are evaluated. Rounding errors are twice those of the
# plain form; with the usual 0, 1, -1, 2, -2 they are three times as large.
POINTS = np.array([0, 2 / 3, -2 / 3, 3 / 2, -3 / 2])

_IS_PLAIN = contextvars.ContextVar("_IS_PLAIN", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Networks that are traced within it have XLA's own convolutions alone, to compare with.

    What has been compiled before stays as it is.
    """
    token = _IS_PLAIN.set(True)
    try:
        yield
    finally:
        _IS_PLAIN.reset(token)


def convolve(
    x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int, padding: str
) -> jax.Array | None:
    """Convolves [B, H, W, I] with [k, k, I, O] as `layers.convolve` does, without bias.

    None where the plain form is best. `padding` is "SAME" or "VALID".
    """
    size, _, channels, features = kernel.shape
    height, width = x.shape[1:3]
    # Sides of a network that is exported for all sizes are no numbers.
    if _IS_PLAIN.get() or not (isinstance(height, int) and isinstance(width, int)):
        return None
    reach = dilation * (size - 1) + 1
    margins = lax.padtype_to_pads((height, width), (reach, reach), (stride, stride), padding)
    if stride > 1 and max(height, width) <= SMALL:
        return _convolve_patches(x, kernel, stride, margins)
    if stride > 1 or x.dtype != jnp.float32:  # Half precision would round each sum's parts.
        return None
    if dilation == 1 and features <= FEW:
        return _convolve_to_few(x, kernel, margins)
    rows_out = height + sum(margins[0]) - 2 * dilation
    computed = _tiles(rows_out, dilation) * TILE * dilation
    wide = channels * features >= MANY
    if size == 3 and wide and computed <= WASTE * rows_out:
        return _convolve_tiles(x, kernel, dilation, tuple(margins))
    return None


def _tiles(rows: int, dilation: int) -> int:
    """How many tiles of `TILE * dilation` rows cover `rows`."""
    return -(-rows // (TILE * dilation))


def _convolve_patches(x: jax.Array, kernel: jax.Array, stride: int, margins) -> jax.Array:
    """One product of matrices: every patch of `x` with the kernel."""
    size, _, _, features = kernel.shape
    x = jnp.pad(x, ((0, 0), *margins, (0, 0)))
    # One that starts at each tap, and ends as far from the other side.
    shifted = [
        x[:, i : x.shape[1] - size + 1 + i : stride, j : x.shape[2] - size + 1 + j : stride]
        for i in range(size)
        for j in range(size)
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    # As a convolution does, with bfloat16 too.
    return jnp.matmul(patches, kernel.reshape(-1, features), preferred_element_type=jnp.float32)


def _convolve_to_few(x: jax.Array, kernel: jax.Array, margins) -> jax.Array:
    """Along rows with all rows of the kernel at once, so that there are more channels out."""
    size, _, channels, features = kernel.shape
    rows, columns = margins
    found = _convolve_rows(
        jnp.pad(x, ((0, 0), rows, (0, 0), (0, 0))),
        kernel.transpose(1, 2, 0, 3).reshape(1, size, channels, size * features),
        columns,
    )
    height = found.shape[1] - size + 1
    by_row = jnp.split(found, size, axis=-1)
    return sum(one[:, i : i + height] for i, one in enumerate(by_row))


# The gradient keeps `x`, not its combinations, which are one and a half times as large.
@functools.partial(jax.checkpoint, static_argnums=(2, 3))
def _convolve_tiles(x: jax.Array, kernel: jax.Array, dilation: int, margins) -> jax.Array:
    """Four rows from six multiplications instead of twelve, by Toom and Cook.

    Rows of the map and of the kernel are coefficients of polynomials in the vertical direction,
    whose product is known by its values at six points. "Multiplication" is a convolution along
    rows here. Winograd, "Arithmetic Complexity of Computations" (1980); for networks Lavin & Gray,
    https://arxiv.org/abs/1509.09308, there in both directions, which takes more additions and
    rounds more.
    """
    batch, rows, _, channels = x.shape
    ((above, below), columns), features = margins, kernel.shape[-1]
    height = above + rows + below - 2 * dilation
    tiles = _tiles(height, dilation)
    below = (tiles + 1) * TILE * dilation - above - rows
    x = jnp.pad(x, ((0, 0), (above, below), (0, 0), (0, 0)))
    # Row i of a tile lies i * dilation below its first; the last two are in the next tile.
    x = x.reshape(batch, tiles + 1, TILE, dilation, -1, channels)
    seen = [x[:, i // TILE : tiles + i // TILE, i % TILE] for i in range(len(FROM_ROWS))]
    found = [
        _convolve_rows(
            _combine(weights, seen).reshape(batch, tiles * dilation, -1, channels),
            _combine(kernel_weights, list(kernel))[np.newaxis],
            columns,
            dilation,
        )
        for weights, kernel_weights in zip(FROM_ROWS, FROM_KERNEL, strict=True)
    ]
    rows_found = [
        _combine(weights, found).reshape(batch, tiles, dilation, -1, features)
        for weights in TO_ROWS
    ]
    y = jnp.stack(rows_found, axis=2)
    return y.reshape(batch, tiles * TILE * dilation, -1, features)[:, :height]


def _convolve_rows(x: jax.Array, kernel: jax.Array, columns, dilation: int = 1) -> jax.Array:
    """With a kernel of one row; `columns` is what to pad left and right."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=((0, 0), columns),
        rhs_dilation=(1, dilation),
        dimension_numbers=DIMENSIONS,
    )


def _combine(weights: np.ndarray, terms: list[jax.Array]) -> jax.Array:
    return sum(float(weight) * term for weight, term in zip(weights, terms, strict=True) if weight)


def _toom_cook(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [points + 1, rows in], [points + 1, size] and [rows out, points + 1].

    Evaluated at the points and, last, at infinity: the leading coefficient.
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


FROM_ROWS, FROM_KERNEL, TO_ROWS = _toom_cook(POINTS, size=3)
