"""Pixel formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfill_jax import image


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_survive_conversion_to_float_and_back(dtype):
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    as_float = image.to_float(values)
    assert as_float.min() == -1 and as_float.max() == 1
    np.testing.assert_array_equal(image.to_integers(as_float, dtype), values)


def test_to_integers_rounds_and_clips():
    # 0.0 maps to 127.5, which is rounded to the even number 128.
    np.testing.assert_array_equal(
        image.to_integers(jnp.array([-1.5, 0.0, 0.9999, 2.0]), np.uint8), [0, 128, 255, 255]
    )


def test_composite_keeps_known_pixels_exact_and_nan_inside_the_hole():
    known = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
    mask = np.zeros((1, 4, 4, 1), np.float32)
    mask[0, 1, 2] = 1
    result = image.composite(np.full_like(known, np.nan), known, mask)
    assert np.isnan(result[0, 1, 2]).all()
    outside = mask[..., 0] == 0
    np.testing.assert_array_equal(np.asarray(result)[outside], known[outside])


def test_numpy_stays_numpy_with_the_types_of_jax():
    rng = np.random.default_rng(0)
    hole = rng.uniform(size=(5, 7, 1)) < 0.5
    for dtype, grey in [(np.uint8, np.uint8(127)), (np.float32, 127.5)]:
        pixels = rng.integers(0, 256, (5, 7, 3)).astype(dtype)
        result = image.composite(grey, pixels, hole)
        assert type(result) is np.ndarray and type(image.to_float(pixels)) is np.ndarray
        expected = image.composite(grey, jnp.asarray(pixels), hole)
        assert isinstance(expected, jax.Array) and result.dtype == expected.dtype == dtype
        np.testing.assert_array_equal(result, expected)
        traced = jax.jit(image.to_float)(pixels)
        np.testing.assert_allclose(image.to_float(pixels), traced, atol=1e-7)


def test_downsample_nearest_follows_both_rounding_rules():
    x = np.arange(64, dtype=np.float32).reshape(1, 64, 1, 1) * np.ones((1, 1, 4, 1), np.float32)
    floor = image.downsample_nearest(x, 2, nearest="floor")[0, :, 0, 0]
    np.testing.assert_array_equal(floor, np.arange(0, 64, 2))
    aligned = image.downsample_nearest(x, 2, nearest="align_corners")[0, :, 0, 0]
    # TF1 takes pixel 2i up to 30 and 2i + 1 from there, so the last pixel maps to the last pixel.
    np.testing.assert_array_equal(aligned, [*range(0, 31, 2), *range(33, 64, 2)])
    with pytest.raises(AssertionError):
        image.downsample_nearest(x, 2, nearest="linear")


@pytest.mark.parametrize("factor, size", [(2, 2), (2, 54), (2, 470), (4, 76), (4, 220), (4, 2048)])
def test_align_corners_is_computed_in_float32(factor, size):
    # For most of these sizes, exact fractions would select other pixels.
    scale = np.float32(size - 1) / np.float32(max(size // factor - 1, 1))
    steps = np.arange(size // factor, dtype=np.float32) * scale
    expected = np.floor(steps + np.float32(0.5))
    x = np.arange(size, dtype=np.float32).reshape(1, size, 1, 1) * np.ones((1, 1, 4, 1), np.float32)
    downsample = functools.partial(image.downsample_nearest, factor=factor, nearest="align_corners")
    for downsampled in (downsample(x), jax.jit(downsample)(x)):
        np.testing.assert_array_equal(downsampled[0, :, 0, 0], expected)


def test_upsample2x_repeats_pixels():
    x = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(
        image.upsample2x(x)[0, :, :, 0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    )


@pytest.mark.parametrize("size", [1, 2, 8, 9, 33, 64, 85, 128, 170])
def test_downsample_nearest_inverts_upsample2x_with_both_rules(size):
    x = np.random.default_rng(0).normal(size=(1, size, size, 1)).astype(np.float32)
    for nearest in ("floor", "align_corners"):
        restored = image.downsample_nearest(image.upsample2x(x), 2, nearest=nearest)
        np.testing.assert_array_equal(restored, x)
