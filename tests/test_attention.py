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


@functools.partial(jax.jit, static_argnums=0, static_argnames="memory")
def attend(variant, queries, keys, mask, memory=None):
    return attention.contextual_attention(
        queries,
        keys,
        mask,
        nearest=variant.nearest,
        unavailable=variant.unavailable,
        overlap=variant.overlap,
        fused=variant.fused,
        memory=memory,
    )


def positions(offsets):
    """The keys that `Attention.offsets` lead to, [B, h, w]."""
    _, h, w, _ = offsets.shape
    return (offsets[..., 0] + np.arange(h)[:, None]) * w + offsets[..., 1] + np.arange(w)


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
    np.testing.assert_array_equal(positions(result.offsets), GOLDEN[f"{case}/argmax"])


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
    x = rng.normal(size=(1, 16, 16, 4)).astype(np.float32)
    for variant in (OFFICIAL, MMAGIC):
        # 4x4 patches of available keys reach one pixel into the 2x2 pixels around them.
        small = image.shrink(mask, 2, nearest=variant.nearest)
        touched = np.asarray(attention.patches(small, 3)).max(-1).reshape(8, 8) > 0
        seen = np.pad(~touched, 1).repeat(2, 0).repeat(2, 1)
        near = [np.roll(seen, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        never_copied = ~np.any(near, axis=0)[2:-2, 2:-2, np.newaxis] & np.ones(4, bool)
        assert never_copied.any()
        result = attend(variant, x, np.where(never_copied, 1e6, x), mask)
        assert np.abs(result.output).max() < 10
        assert not touched.ravel()[positions(result.offsets)].any()


def fuse_by_loops(scores, h, w):
    """The neighbours' scores added, by the definition: [Q, K]."""

    def add(s, order):
        result = np.zeros_like(s)
        rank = {position: n for n, position in enumerate(order)}
        for q in order:
            for k in order:
                for d in (-1, 0, 1):
                    a, b = rank[q] + d, rank[k] + d
                    if 0 <= a < h * w and 0 <= b < h * w:
                        result[q, k] += s[order[a], order[b]]
        return result

    by_rows = add(scores, range(h * w))
    return add(by_rows, sorted(range(h * w), key=lambda p: (p % w, p // w)))


@pytest.mark.parametrize("h, w", [(3, 4), (1, 5), (5, 1), (1, 1), (2, 2)])
def test_scores_are_added_along_both_diagonals_with_wrapping_ends(h, w):
    queries, keys = np.random.default_rng(0).normal(size=(2, 1, h * w, 6)).astype(np.float32)
    expected = fuse_by_loops(queries[0] @ keys[0].T, h, w).reshape(h, w, h, w)
    for rows in range(1, h + 1):
        for first in range(h - rows + 1):
            some = attention.fused_scores(queries, keys, first, rows=rows, h=h, w=w)
            np.testing.assert_allclose(some[0], expected[first : first + rows], atol=1e-5)


# Height and width of the map, and rows of queries in a block.
BLOCKS = [
    *((16, 16, rows) for rows in (1, 2, 3, 4, 5, 7)),
    *((6, 40, 1), (40, 6, 3), (2, 24, 1), (22, 2, 4), (34, 18, 8), (18, 34, 6)),
]


@pytest.mark.parametrize("height, width, rows", BLOCKS)
def test_blocks_of_rows_change_nothing(height, width, rows):
    h, w = height // 2, width // 2
    memory = rows * attention.SCORE_COPIES * 4 * 2 * w * h * w
    assert attention.block_rows(2, h, w, memory) <= rows < h or h == 1
    rng = np.random.default_rng(0)
    x, cotangent = rng.normal(size=(2, 2, height, width, 4)).astype(np.float32) / 2
    mask = np.zeros((2, height, width, 1), np.float32)
    mask[0, height // 3 : height // 2, : width // 2] = 1
    mask[1, :, -3:] = 1
    variant = (OFFICIAL, MMAGIC)[rows % 2]

    def run(x, memory):
        result = attend(variant, x, x, mask, memory=memory)
        return jnp.sum(result.output * cotangent), result

    (_, whole), expected = jax.value_and_grad(run, has_aux=True)(x, None)
    (_, blocked), gradient = jax.value_and_grad(run, has_aux=True)(x, memory)
    np.testing.assert_allclose(blocked.output, whole.output, atol=1e-5)
    np.testing.assert_array_equal(blocked.offsets, whole.offsets)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_blocks_fit_the_memory_and_are_of_nearly_one_size():
    row = attention.SCORE_COPIES * 4 * 10 * 20 * 10
    assert attention.block_rows(1, 20, 10, None) == 20
    assert attention.block_rows(1, 20, 10, 20 * row) == 20
    assert attention.block_rows(1, 20, 10, 20 * row - 1) == 10  # Not 19 and 1.
    assert attention.block_rows(2, 20, 10, 14 * row) == 7
    assert attention.block_rows(1, 20, 10, 0) == 1


def test_features_in_bfloat16_are_scored_in_float32():
    patches = np.random.default_rng(0).normal(size=(2, 1, 12, 90))
    rough = [jnp.asarray(x, jnp.bfloat16) for x in patches]
    exact = [x.astype(jnp.float32) for x in rough]
    scores, expected = (attention.fused_scores(*x, 1, rows=2, h=3, w=4) for x in (rough, exact))
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    lengths = jnp.linalg.norm(attention.unit(rough[1]).astype(jnp.float32), axis=-1)
    np.testing.assert_allclose(lengths, 1.0, atol=2e-3)
    weights = attention.attend(
        scores.reshape(1, 8, 12), jnp.ones((1, 12)), unavailable="excluded", softmax_scale=10.0
    )
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(weights, axis=-1), 1.0, atol=1e-5)


def test_scores_can_be_left_unfused():
    queries, keys = np.random.default_rng(0).normal(size=(2, 1, 12, 12, 4)).astype(np.float32)
    mask = np.zeros((1, 12, 12, 1), np.float32)
    small = (image.shrink(x, 2, nearest=OFFICIAL.nearest) for x in (queries, keys))
    of_queries, of_keys = (attention.patches(x, 3) for x in small)
    scores = attention.match_scores(of_queries, attention.unit(of_keys))
    weights = jax.nn.softmax(10 * scores, axis=-1)
    values = attention.patches(keys, 4, stride=2)
    expected = attention.paste(jnp.einsum("bqk,bkd->bqd", weights, values), 6, 6) / 4
    variant = dataclasses.replace(OFFICIAL, fused=False)
    for memory in (None, 1):
        plain = attend(variant, queries, keys, mask, memory=memory).output
        np.testing.assert_allclose(plain, expected, atol=1e-4)
    assert np.abs(plain - attend(OFFICIAL, queries, keys, mask).output).max() > 0.1


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
