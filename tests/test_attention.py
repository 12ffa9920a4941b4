"""Contextual attention compared with both references and with naive loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
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
    """Converts `Attention.offsets` to indices of keys, [B, h, w]."""
    _, h, w, _ = offsets.shape
    return (offsets[..., 0] + np.arange(h)[:, None]) * w + offsets[..., 1] + np.arange(w)


def load(case):
    x = nhwc(GOLDEN[f"{case}/x"])
    keys = nhwc(GOLDEN[f"{case}/context"]) if f"{case}/context" in GOLDEN else x
    mask = nhwc(GOLDEN[f"{case}/mask"]) if f"{case}/mask" in GOLDEN else np.zeros_like(x[..., :1])
    return x, keys, mask


def scale(x):
    """Returns the scale of tolerances, because the features of some cases are 50 times larger."""
    return max(1.0, np.abs(x).max() / 4)


@pytest.mark.parametrize("case", [case for case in CASES if case != ALL_MASKED])
def test_attention_matches_mmagic(case):
    result = attend(MMAGIC, *load(case))
    expected = nhwc(GOLDEN[f"{case}/out"])
    np.testing.assert_allclose(result.output, expected, atol=1e-4 * scale(expected))
    np.testing.assert_array_equal(positions(result.offsets), GOLDEN[f"{case}/argmax"])


@pytest.mark.parametrize("case", CASES)
def test_attention_matches_tf1_release(case):
    result = attend(OFFICIAL, *load(case))
    expected = nhwc(GOLDEN[f"{case}/tf_out"])
    np.testing.assert_allclose(result.output, expected, atol=1e-4 * scale(expected))


@pytest.mark.parametrize("case", [case for case in CASES if f"{case}/grad_x" in GOLDEN])
def test_gradient_matches_mmagic(case):
    x, _, mask = load(case)
    cotangent = nhwc(GOLDEN[f"{case}/cotangent"])
    gradient = jax.grad(lambda x: jnp.sum(attend(MMAGIC, x, x, mask).output * cotangent))(x)
    expected = nhwc(GOLDEN[f"{case}/grad_x"])
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * scale(expected))


@pytest.mark.parametrize("variant", [OFFICIAL, MMAGIC], ids=lambda variant: variant.name)
def test_output_and_gradient_are_zero_for_a_full_mask(variant):
    x, _, mask = load(ALL_MASKED)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(attend(variant, x, x, mask).output))(x)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(x))


def test_gradient_is_finite_at_a_patch_of_zeros():
    # MMagic's gradient is not finite here, because it differentiates the square root at 0.
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


def test_hole_pixels_are_never_copied():
    rng = np.random.default_rng(0)
    mask = np.zeros((1, 16, 16, 1), np.float32)
    mask[0, 4:9, 3:11] = 1
    x = rng.normal(size=(1, 16, 16, 4)).astype(np.float32)
    for variant in (OFFICIAL, MMAGIC):
        # The 4x4 patches of available keys reach one pixel beyond the key's own 2x2 pixels.
        small = image.downsample_nearest(mask, 2, nearest=variant.nearest)
        touched = scipy.ndimage.maximum_filter(small[0, ..., 0], 3, mode="constant") > 0
        available = np.pad(~touched, 1).repeat(2, 0).repeat(2, 1)
        shifted = [np.roll(available, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        never_copied = ~np.any(shifted, axis=0)[2:-2, 2:-2, np.newaxis] & np.ones(4, bool)
        assert never_copied.any()
        result = attend(variant, x, np.where(never_copied, 1e6, x), mask)
        assert np.abs(result.output).max() < 10
        assert not touched.ravel()[positions(result.offsets)].any()


def patches(x, size, stride=1):
    """Cuts all patches of [H, W, C], padded by 0: [H / stride, W / stride, size, size, C]."""
    before = (size - stride) // 2
    padded = np.pad(x, ((before, size), (before, size), (0, 0)))
    rows, columns = (range(0, side, stride) for side in x.shape[:2])
    return np.stack([[padded[i : i + size, j : j + size] for j in columns] for i in rows])


def match_by_patches(queries, keys):
    """Computes cosine similarities of [h, w, C], times the query's norm: [Q, K]."""
    query_patches, key_patches = (
        patches(x, 3).reshape(x.shape[0] * x.shape[1], -1) for x in (queries, keys)
    )
    return query_patches @ (key_patches / np.linalg.norm(key_patches, axis=1, keepdims=True)).T


def fuse_by_loops(scores, h, w):
    """Adds neighbours' scores, by the definition: [Q, K]."""

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
def test_scores_match_patch_products_fused_by_loops(h, w):
    queries, keys = np.random.default_rng(0).normal(size=(2, 1, h, w, 6)).astype(np.float32)
    inputs = attention.strips(queries, 3), attention.strips(keys, 3), attention.patch_lengths(keys)
    matched = match_by_patches(queries[0], keys[0])
    fused = fuse_by_loops(matched, h, w)
    blocks = [(first, rows) for rows in range(1, h + 1) for first in range(h - rows + 1)]

    @jax.jit
    def compute(*inputs):
        return [
            [scores(*inputs, *block)[0] for block in blocks]
            for scores in (attention.match_rows, attention.fused_scores)
        ]

    for expected, found in zip((matched, fused), compute(*inputs), strict=True):
        for (first, rows), block in zip(blocks, found, strict=True):
            rows_of_block = expected.reshape(h, w, h, w)[first : first + rows]
            np.testing.assert_allclose(block, rows_of_block, atol=1e-5)


# Height and width of the map, rows of queries per block.
BLOCKS = [
    *((16, 16, rows) for rows in (1, 2, 3, 4, 5, 7)),
    *((6, 40, 1), (40, 6, 3), (2, 24, 1), (22, 2, 4), (34, 18, 8), (18, 34, 6)),
]


@pytest.mark.parametrize("height, width, rows", BLOCKS)
def test_result_does_not_depend_on_block_size(height, width, rows):
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

    # The other tests compile without optimisation, which has larger rounding errors.
    run = jax.jit(
        jax.value_and_grad(run, has_aux=True),
        static_argnums=1,
        compiler_options={"xla_backend_optimization_level": 3},
    )
    (_, whole), expected = run(x, None)
    (_, blocked), gradient = run(x, memory)
    np.testing.assert_allclose(blocked.output, whole.output, atol=1e-5)
    np.testing.assert_array_equal(blocked.offsets, whole.offsets)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_blocks_fit_the_memory_and_have_almost_equal_sizes():
    row = attention.SCORE_COPIES * 4 * 10 * 20 * 10
    assert attention.block_rows(1, 20, 10, None) == 20
    assert attention.block_rows(1, 20, 10, 20 * row) == 20
    assert (
        attention.block_rows(1, 20, 10, 20 * row - 1) == 10
    )  # Two blocks of 10 rows, rather than of 19 rows and 1.
    assert attention.block_rows(2, 20, 10, 14 * row) == 7
    assert attention.block_rows(1, 20, 10, 0) == 1


def paste_by_patches(weights, keys):
    """Pastes each query's weighted mean patch, at a stride of two pixels: [H, W, C].

    `weights` are [Q, K], `keys` [H, W, C].
    """
    height, width, channels = keys.shape
    h, w = height // 2, width // 2
    copied = weights @ patches(keys, 4, stride=2).reshape(h * w, -1)
    pasted = np.zeros((height + 2, width + 2, channels))
    for i in range(h):
        for j in range(w):
            patch = copied[i * w + j].reshape(4, 4, channels)
            pasted[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += patch
    return pasted[1:-1, 1:-1]


def test_bfloat16_features_get_float32_scores():
    features = np.random.default_rng(0).normal(size=(2, 1, 3, 4, 10))

    def scores_of(queries, keys):
        both_strips = attention.strips(queries, 3), attention.strips(keys, 3)
        return attention.fused_scores(*both_strips, attention.patch_lengths(keys), 1, 2)

    rough = [jnp.asarray(x, jnp.bfloat16) for x in features]
    scores, expected = scores_of(*rough), scores_of(*(x.astype(jnp.float32) for x in rough))
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    weights = attention.attend(
        scores, jnp.ones((1, 3, 4)), unavailable="excluded", softmax_scale=10.0
    )
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(weights, axis=(-2, -1)), 1.0, atol=1e-5)


def test_unfused_attention_matches_softmax_of_patch_products():
    queries, keys = np.random.default_rng(0).normal(size=(2, 1, 12, 12, 4)).astype(np.float32)
    mask = np.zeros((1, 12, 12, 1), np.float32)
    small = (image.downsample_nearest(x, 2, nearest=OFFICIAL.nearest)[0] for x in (queries, keys))
    weights = np.asarray(jax.nn.softmax(10 * match_by_patches(*small), axis=-1))
    expected = paste_by_patches(weights, keys[0]) / 4
    variant = dataclasses.replace(OFFICIAL, fused=False)
    for memory in (None, 1):
        plain = attend(variant, queries, keys, mask, memory=memory).output
        np.testing.assert_allclose(plain[0], expected, atol=1e-4)
    assert np.abs(plain - attend(OFFICIAL, queries, keys, mask).output).max() > 0.1


def test_paste_matches_a_loop_over_patches():
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(4, 6, 2)).astype(np.float32)
    weights = rng.normal(size=(6, 6)).astype(np.float32)
    values = attention.strips(attention.pair_columns(keys[np.newaxis]), 4, stride=2)
    pasted = attention.paste(attention.copy_strips(weights.reshape(1, 2, 3, 2, 3), values))[0]
    np.testing.assert_allclose(pasted, paste_by_patches(weights, keys), atol=1e-5)


@pytest.mark.parametrize("h, w", [(6, 4), (1, 1), (1, 3), (3, 1)])
def test_pasting_every_patch_in_its_own_place_restores_the_map(h, w):
    keys = np.random.default_rng(0).normal(size=(2 * h, 2 * w, 3)).astype(np.float32)
    counted = paste_by_patches(np.eye(h * w), np.ones_like(keys))
    np.testing.assert_array_equal(attention._coverage(h, w, "counted"), counted[..., :1])
    values = attention.strips(attention.pair_columns(keys[np.newaxis]), 4, stride=2)
    stay = np.eye(h * w, dtype=np.float32).reshape(1, h, w, h, w)
    pasted = attention.paste(attention.copy_strips(stay, values))[0]
    np.testing.assert_allclose(pasted / counted, keys, atol=1e-6)
