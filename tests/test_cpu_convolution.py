"""Forms of a convolution that a CPU computes faster: the plain one in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfill_jax.models import cpu_convolution
from deepfill_jax.models.layers import convolve


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def taken(monkeypatch, form, x, kernel, **options):
    """Convolves and differentiates both ways; was it by `form`?"""
    calls = []
    original = getattr(cpu_convolution, form)
    monkeypatch.setattr(cpu_convolution, form, lambda *a: calls.append(1) or original(*a))

    def run(x, kernel):
        def convolved(x, kernel):
            return convolve(x, kernel, draw(kernel.shape[-1], seed=1), **options)

        result, pull = jax.vjp(convolved, x, kernel)
        return result, *pull(draw(*result.shape, seed=2))

    found = jax.jit(run)(x, kernel)
    count = len(calls)
    with cpu_convolution.plain():
        expected = jax.jit(lambda *a: run(*a))(x, kernel)  # Not the one that is compiled already.
    assert len(calls) == count
    for one, plain in zip(found, expected, strict=True):
        # Rounding errors are of the size of what is added up.
        np.testing.assert_allclose(one, plain, atol=1e-5 * max(1, np.abs(plain).max()))
    return bool(calls)


@pytest.mark.parametrize("padding", ["SAME", "SYMMETRIC"])
@pytest.mark.parametrize("height, width", [(8, 6), (7, 9), (2, 2), (1, 1)])
def test_strided_convolution_of_a_small_map(monkeypatch, padding, height, width):
    x, kernel = draw(2, height, width, 3), draw(5, 5, 3, 4)
    form = "_convolve_patches"
    assert taken(monkeypatch, form, x, kernel, stride=2, padding=padding)


@pytest.mark.parametrize("padding", ["SAME", "REFLECT"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolution_to_few_channels(monkeypatch, padding, size):
    x, kernel = draw(2, 7, 6, 12), draw(size, size, 12, 3)
    assert taken(monkeypatch, "_convolve_to_few", x, kernel, padding=padding)


@pytest.mark.parametrize("padding", ["SAME", "REFLECT"])
@pytest.mark.parametrize("height, width, dilation", [(4, 5, 1), (15, 4, 1), (8, 6, 2), (30, 9, 4)])
def test_convolution_of_many_channels(monkeypatch, padding, height, width, dilation):
    x, kernel = draw(2, height, width, 24), draw(3, 3, 24, 48)
    assert taken(monkeypatch, "_convolve_tiles", x, kernel, dilation=dilation, padding=padding)


@pytest.mark.parametrize(
    "x, kernel, options",
    [
        ((1, 8, 8, 24), (3, 3, 24, 40), {}),  # Few channels.
        ((1, 9, 8, 24), (3, 3, 24, 48), {}),  # 12 rows for 9.
        ((1, 8, 8, 24), (3, 3, 24, 48), {"dilation": 4}),  # 16 rows for 8.
        ((1, 8, 8, 24), (5, 5, 24, 48), {}),
        ((1, 8, 8, 24), (3, 3, 24, 48), {"stride": 2}),
    ],
)
def test_where_many_channels_do_not_pay(monkeypatch, x, kernel, options):
    assert not taken(monkeypatch, "_convolve_tiles", draw(*x), draw(*kernel), **options)


def test_half_precision_and_unknown_sizes_are_left_alone(monkeypatch):
    monkeypatch.setattr(cpu_convolution, "_convolve_tiles", None)
    options = {"stride": 1, "dilation": 1, "padding": "SAME"}
    x, kernel = draw(1, 8, 8, 24), draw(3, 3, 24, 48)
    half = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert cpu_convolution.convolve(*half, **options) is None
    assert cpu_convolution.convolve(half[0], half[1][..., :3], **options) is None
    sides = jax.export.symbolic_shape("h, w")
    unknown = jax.ShapeDtypeStruct((1, *sides, 24), jnp.float32)
    assert cpu_convolution.convolve(unknown, kernel, **options) is None
