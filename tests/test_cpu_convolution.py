"""CPU convolution algorithms: values and gradients match XLA's convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from deepfill_jax import compiler
from deepfill_jax.models import cpu_convolution
from deepfill_jax.models.layers import convolve


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def matches_and_uses(monkeypatch, algorithm, x, kernel, **options):
    """Asserts that values and gradients match XLA's; returns whether `algorithm` was called."""
    calls = []
    original = getattr(cpu_convolution, algorithm)
    monkeypatch.setattr(cpu_convolution, algorithm, lambda *a: calls.append(1) or original(*a))

    def run(x, kernel):
        def convolved(x, kernel):
            return convolve(x, kernel, draw(kernel.shape[-1], seed=1), **options)

        result, pull = jax.vjp(convolved, x, kernel)
        return result, *pull(draw(*result.shape, seed=2))

    results = jax.jit(run)(x, kernel)
    count = len(calls)
    with compiler.use_form("default"):
        # The lambda is a new function, so `run` is traced and compiled again.
        expected = jax.jit(lambda *a: run(*a))(x, kernel)
    assert len(calls) == count
    for result, plain in zip(results, expected, strict=True):
        # Rounding errors are proportional to the size of the summands.
        np.testing.assert_allclose(result, plain, atol=1e-5 * max(1, np.abs(plain).max()))
    return bool(calls)


@pytest.mark.parametrize("padding", ["SAME", "SYMMETRIC"])
@pytest.mark.parametrize("height, width", [(8, 6), (7, 9), (2, 2), (1, 1)])
def test_strided_convolution_of_a_small_map_uses_patches(monkeypatch, padding, height, width):
    x, kernel = draw(2, height, width, 3), draw(5, 5, 3, 4)
    algorithm = "_convolve_patches"
    assert matches_and_uses(monkeypatch, algorithm, x, kernel, stride=2, padding=padding)


def test_patches_in_half_precision_are_rounded_once():
    x, kernel, bias = draw(2, 8, 8, 3), draw(5, 5, 3, 4), jnp.zeros(4)
    options = {"stride": 2, "dtype": jnp.bfloat16}
    results = [jax.jit(lambda *a: convolve(*a, **options))(x, kernel, bias)]
    with compiler.use_form("default"):
        results.append(jax.jit(lambda *a: convolve(*a, **options))(x, kernel, bias))
    result, plain = (np.float32(y) for y in results)
    assert results[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(result, plain, rtol=2**-7, atol=1e-5)  # The last of eight digits.


@pytest.mark.parametrize("padding", ["SAME", "REFLECT"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolution_to_few_channels_uses_kernel_rows(monkeypatch, padding, size):
    x, kernel = draw(2, 7, 6, 12), draw(size, size, 12, 3)
    assert matches_and_uses(monkeypatch, "_convolve_to_few", x, kernel, padding=padding)


@pytest.mark.parametrize("padding", ["SAME", "REFLECT"])
@pytest.mark.parametrize("height, width, dilation", [(4, 5, 1), (15, 4, 1), (8, 6, 2), (30, 9, 4)])
def test_convolution_of_many_channels_uses_tiles(monkeypatch, padding, height, width, dilation):
    x, kernel = draw(2, height, width, 24), draw(3, 3, 24, 48)
    options = {"dilation": dilation, "padding": padding}
    assert matches_and_uses(monkeypatch, "_convolve_tiles", x, kernel, **options)


@pytest.mark.parametrize(
    "x, kernel, options",
    [
        ((1, 8, 8, 24), (3, 3, 24, 40), {}),  # Too few channels.
        ((1, 9, 8, 24), (3, 3, 24, 48), {}),  # 12 rows would be computed for 9.
        ((1, 8, 8, 24), (3, 3, 24, 48), {"dilation": 4}),  # 16 rows would be computed for 8.
        ((1, 8, 8, 24), (5, 5, 24, 48), {}),
        ((1, 8, 8, 24), (3, 3, 24, 48), {"stride": 2}),
    ],
)
def test_tiles_are_not_used_where_they_are_slower(monkeypatch, x, kernel, options):
    assert not matches_and_uses(monkeypatch, "_convolve_tiles", draw(*x), draw(*kernel), **options)


def test_half_precision_and_symbolic_sizes_use_xla(monkeypatch):
    monkeypatch.setattr(cpu_convolution, "_convolve_tiles", None)
    options = {"stride": 1, "dilation": 1, "padding": "SAME"}
    x, kernel = draw(1, 8, 8, 24), draw(3, 3, 24, 48)
    half = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert cpu_convolution.algorithm(*half, **options) is None
    assert cpu_convolution.algorithm(half[0], half[1][..., :3], **options) is None
    sides = export.symbolic_shape("h, w")
    unknown = jax.ShapeDtypeStruct((1, *sides, 24), jnp.float32)
    assert cpu_convolution.algorithm(unknown, kernel, **options) is None
