"""Contextual attention against both references, and against loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import golden, nhwc

from deepfill_jax import image
from deepfill_jax.models import MMAGIC, OFFICIAL, attention

GOLDEN = golden("attention")
CASES = sorted({key.split("/")[0] for key in GOLDEN})
ALL_MASKED = "i_b1_c8_16x16_allmasked"


@functools.partial(jax.jit, static_argnums=0)
def attend(variant, queries, keys, mask):
    return attention.contextual_attention(
        queries,
        keys,
        mask,
        nearest=variant.nearest,
        unavailable=variant.unavailable,
        overlap=variant.overlap,
        fused=variant.fused,
    )


def load(case):
    x = nhwc(GOLDEN[f"{case}/x"])
    keys = nhwc(GOLDEN[f"{case}/context"]) if f"{case}/context" in GOLDEN else x
    mask = nhwc(GOLDEN[f"{case}/mask"]) if f"{case}/mask" in GOLDEN else np.zeros_like(x[..., :1])
    return x, keys, mask


def scale(x):
    """Some cases have features of 50 times the size."""
    return max(1.0, np.abs(x).max() / 4)


@pytest.mark.parametrize("case", [case for case in CASES if case != ALL_MASKED])
def test_attention_is_mmagics(case):
    result = attend(MMAGIC, *load(case))
    expected = nhwc(GOLDEN[f"{case}/out"])
    np.testing.assert_allclose(result.output, expected, atol=1e-4 * scale(expected))
    h, w = expected.shape[1] // 2, expected.shape[2] // 2
    np.testing.assert_array_equal(
        jnp.argmax(result.weights, axis=-1).reshape(-1, h, w), GOLDEN[f"{case}/argmax"]
    )


@pytest.mark.parametrize("case", CASES)
def test_attention_is_the_releases(case):
    result = attend(OFFICIAL, *load(case))
    expected = nhwc(GOLDEN[f"{case}/tf_out"])
    np.testing.assert_allclose(result.output, expected, atol=1e-4 * scale(expected))


@pytest.mark.parametrize("case", [case for case in CASES if f"{case}/grad_x" in GOLDEN])
def test_gradient_is_mmagics(case):
    x, _, mask = load(case)
    cotangent = nhwc(GOLDEN[f"{case}/cotangent"])
    gradient = jax.grad(lambda x: jnp.sum(attend(MMAGIC, x, x, mask).output * cotangent))(x)
    expected = nhwc(GOLDEN[f"{case}/grad_x"])
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * scale(expected))


@pytest.mark.parametrize("variant", [OFFICIAL, MMAGIC], ids=lambda variant: variant.name)
def test_nothing_is_copied_where_nothing_is_known(variant):
    x, _, mask = load(ALL_MASKED)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(attend(variant, x, x, mask).output))(x)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(x))


def test_gradient_is_finite_at_a_patch_of_zeros():
    # MMagic's is not: the derivative of the root at 0.
    x = np.zeros((1, 16, 16, 4), np.float32)
    x[0, 8:, 8:] = 1.0
    gradient = jax.grad(lambda x: jnp.sum(attend(MMAGIC, x, x, x[..., :1] * 0).output ** 2))(x)
    assert np.isfinite(gradient).all()


def test_each_example_has_its_own_mask():
    x, keys, mask = load("b_b2_c8_16x16_permask")
    assert (mask[0] != mask[1]).any()
    both = attend(MMAGIC, x, keys, mask).output
    for i in (0, 1):
        alone = attend(MMAGIC, x[i : i + 1], keys[i : i + 1], mask[i : i + 1]).output
        np.testing.assert_allclose(both[i : i + 1], alone, atol=1e-6)


def test_no_hole_pixel_is_copied():
    rng = np.random.default_rng(0)
    mask = np.zeros((1, 16, 16, 1), np.float32)
    mask[0, 4:9, 3:11] = 1
    for variant in (OFFICIAL, MMAGIC):
        weights = attend(variant, *2 * (rng.normal(size=(1, 16, 16, 4)),), mask).weights
        small = image.shrink(mask, 2, nearest=variant.nearest)[0, :, :, 0]
        touched = [
            small[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].any()
            for i in range(8)
            for j in range(8)
        ]
        np.testing.assert_array_equal(np.asarray(weights).sum((0, 1))[touched], 0)


def test_fuse_adds_along_both_diagonals_with_wrapping_rows():
    h, w = 3, 4
    scores = np.random.default_rng(0).normal(size=(1, h * w, h * w)).astype(np.float32)

    def add(s, position_of):
        """The neighbour is one further in the order that `position_of` gives."""
        result = np.zeros_like(s)
        order = sorted(range(h * w), key=position_of)
        rank = {p: n for n, p in enumerate(order)}
        for q in range(h * w):
            for k in range(h * w):
                for d in (-1, 0, 1):
                    a, b = rank[q] + d, rank[k] + d
                    if 0 <= a < h * w and 0 <= b < h * w:
                        result[0, q, k] += s[0, order[a], order[b]]
        return result

    by_rows = add(scores, lambda p: p)
    expected = add(by_rows, lambda p: (p % w, p // w))
    np.testing.assert_allclose(attention.fuse(scores, h, w), expected, atol=1e-5)


def test_scores_can_be_left_unfused():
    queries, keys = np.random.default_rng(0).normal(size=(2, 1, 12, 12, 4)).astype(np.float32)
    mask = np.zeros((1, 12, 12, 1), np.float32)
    small = (image.shrink(x, 2, nearest=OFFICIAL.nearest) for x in (queries, keys))
    scores = attention.match_scores(*(attention.patches(x, 3) for x in small))
    plain, fused = (
        attend(dataclasses.replace(OFFICIAL, fused=fused), queries, keys, mask).weights
        for fused in (False, True)
    )
    np.testing.assert_allclose(plain, jax.nn.softmax(10 * scores, axis=-1), atol=1e-5)
    assert np.abs(plain - fused).max() > 0.1


def test_paste_lays_every_patch_two_pixels_on():
    h, w, channels = 2, 3, 2
    patches = np.random.default_rng(0).normal(size=(1, h * w, 16 * channels)).astype(np.float32)
    expected = np.zeros((2 * h + 2, 2 * w + 2, channels))
    for i in range(h):
        for j in range(w):
            patch = patches[0, i * w + j].reshape(4, 4, channels)
            expected[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += patch
    np.testing.assert_allclose(attention.paste(patches, h, w)[0], expected[1:-1, 1:-1], atol=1e-6)


def test_patches_pasted_and_counted_give_the_map_back():
    x = np.random.default_rng(0).normal(size=(2, 12, 8, 3)).astype(np.float32)
    pasted = attention.paste(attention.patches(x, 4, stride=2), 6, 4)
    counted = attention.paste(jnp.ones((1, 24, 16)), 6, 4)
    np.testing.assert_allclose(pasted / counted, x, atol=1e-6)
