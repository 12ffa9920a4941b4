"""Contextual attention: reconstructs features in the hole from patches of the known region.

Yu et al., "Generative Image Inpainting with Contextual Attention" (CVPR 2018), section 4.1,
https://arxiv.org/abs/1801.07892, in DeepFillv2's form: patches are compared and copied on a
feature map at a quarter of the image's size, with one query for every 2x2 pixels of this map.

    match   similarity of the 3x3 patches around each query and each key, on the halved map
    fuse    neighbours of a query should copy neighbours of its key: add scores along diagonals
    attend  softmax over the keys; keys whose patch overlaps the hole are not available
    paste   add up the 4x4 patches of the full map, by weight, and divide by their overlap

There is one score per query and key, so the scores grow with the square of the image's area.
If memory is short, the first three steps therefore process a few rows of queries at a time.

Contextual attention has no parameters, so this module contains functions only. Letters in shapes:
B batch, h and w the sides of the halved map, C channels, Q = K = h * w queries and keys in
row-major order, D patch length, R rows of queries.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from deepfill_jax import image

SOFTMAX_SCALE = 10.0
NORM_FLOOR = 1e-4  # Lower bound of the norm that a key is divided by.
SCORE_COPIES = 4  # Scores, fused scores, logits and weights may be in memory at once.
# Acts as minus infinity, but leaves the softmax finite where every key is excluded.
EXCLUDED_LOGIT = -1e30


class Attention(NamedTuple):
    """Result of `contextual_attention`."""

    output: jax.Array  # [B, 2h, 2w, C], the reconstructed map.
    # int32 [B, h, w, 2]: position of the key with the largest weight, as (down, right) from the
    # query.
    offsets: jax.Array


def contextual_attention(
    queries: jax.Array,
    keys: jax.Array,
    mask: jax.Array,
    *,
    nearest: str,
    unavailable: str,
    overlap: str,
    fused: bool = True,
    softmax_scale: float = SOFTMAX_SCALE,
    memory: int | None = None,
) -> Attention:
    """Reconstructs the map `queries` from patches of `keys` that contain no hole pixels.

    Args:
        queries: [B, H, W, C] features to reconstruct; H and W are even.
        keys: [B, H, W, C] features to copy from; the networks pass the same map twice.
        mask: [B, H, W, 1], 1 in the hole; each example has its own mask.
        nearest: Rounding rule of the 2x downsampling, see `image.downsample_nearest`.
        unavailable: "zero_logit": a key with hole pixels enters the softmax with logit 0 and its
            weight is dropped, so the remaining weights sum to less than 1 (TF1 release).
            "excluded": such a key is excluded from the softmax (MMagic).
        overlap: "constant": divide the pasted map by 4, which darkens its outermost pixels because
            fewer patches overlap there (TF1 release). "counted": divide each pixel by the number of
            patches that cover it (MMagic).
        fused: Add the scores of neighbours, see `fused_scores`.
        softmax_scale: Inverse temperature of the softmax.
        memory: Approximate limit of the memory for scores in bytes; at least one row of queries is
            computed at a time. None computes all rows at once. The result does not depend on it.

    Returns:
        Output and offsets. The output is 0 if no key is available.
    """
    small_queries, small_keys = (
        image.downsample_nearest(x, 2, nearest=nearest) for x in (queries, keys)
    )
    small_mask = image.downsample_nearest(mask, 2, nearest=nearest)
    batch, h, w, _ = small_keys.shape

    lengths = patch_lengths(small_keys)
    available = 1.0 - nn.max_pool(small_mask, (3, 3), padding="SAME")[..., 0]  # [B, h, w]
    query_strips, key_strips = strips(small_queries, 3), strips(small_keys, 3)
    values = strips(pair_columns(keys), 4, stride=2)

    def copy_rows(first: jax.Array | int, rows: int) -> tuple[jax.Array, jax.Array]:
        score = fused_scores if fused else match_rows
        scores = score(query_strips, key_strips, lengths, first, rows)
        weights = attend(scores, available, unavailable=unavailable, softmax_scale=softmax_scale)
        best = jnp.argmax(weights.reshape(batch, rows, w, h * w), axis=-1)
        return copy_strips(weights, values), best

    copied, best = _in_blocks(copy_rows, h, block_rows(batch, h, w, memory))
    pasted = paste(copied)
    output = pasted / _coverage(h, w, overlap).astype(pasted.dtype)
    return Attention(output, _offsets(best))


def block_rows(batch: int, h: int, w: int, memory: int | None) -> int:
    """Returns the number of rows of queries per block, so that blocks have almost equal sizes.

    Args:
        batch: Batch size.
        h: Rows of queries.
        w: Columns of queries.
        memory: Limit for the scores of a block in bytes; None puts all rows into one block.
    """
    if memory is None:
        return h
    row = SCORE_COPIES * 4 * batch * w * h * w
    blocks = -(-h // max(memory // row, 1))
    return -(-h // blocks)


def _in_blocks(
    copy_rows: Callable[[jax.Array | int, int], tuple[jax.Array, ...]], h: int, rows: int
) -> tuple[jax.Array, ...]:
    """Applies `copy_rows(first, rows)` to all h rows, `rows` at a time: arrays [B, h, ...]."""
    if rows == h:
        return copy_rows(0, h)
    # All blocks have the same size, so the last one may overlap the block before it. The rows
    # computed twice are dropped below.
    firsts = jnp.minimum(jnp.arange(0, h, rows), h - rows)
    # Without `checkpoint`, the scores of every block would be kept for the backward pass.
    blocks = lax.map(jax.checkpoint(lambda first: copy_rows(first, rows)), firsts)

    def joined(x: jax.Array) -> jax.Array:  # [blocks, B, R, ...]
        new = h - (len(firsts) - 1) * rows
        return jnp.concatenate([*x[:-1], x[-1][:, -new:]], axis=1)

    return jax.tree.map(joined, blocks)


def strips(x: jax.Array, size: int, *, stride: int = 1) -> jax.Array:
    """Concatenates `size` adjacent rows along the channels, with zeros outside the map.

    A strip of odd size is centred on its row; a strip of size 4 and stride 2 on its 2 rows.

    Args:
        x: [B, H, W, C].
        size: Rows per strip.
        stride: Distance between strips, in rows.

    Returns:
        [B, H / stride, W, size * C].
    """
    height = x.shape[1]
    before = (size - stride) // 2
    x = jnp.pad(x, ((0, 0), (before, size), (0, 0), (0, 0)))
    return jnp.concatenate([x[:, i : i + height : stride] for i in range(size)], axis=-1)


def pair_columns(x: jax.Array) -> jax.Array:
    """Merges pixel columns 2i - 1 and 2i of [B, H, W, C] into one: [B, H, W / 2 + 1, 2 * C]."""
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    return x.reshape(*x.shape[:2], -1, 2 * x.shape[-1])


def patch_lengths(x: jax.Array) -> jax.Array:
    """Computes norms of the 3x3 patches of [B, H, W, C]: float32 [B, H, W].

    The norms are Euclidean and at least `NORM_FLOOR`.
    """
    square = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1)
    square = lax.reduce_window(square, 0.0, lax.add, (1, 3, 3), (1, 1, 1), "SAME")
    # The bound is applied before the root, so that the gradient at a patch of zeros is finite.
    return jnp.sqrt(jnp.maximum(square, NORM_FLOOR**2))


def match_scores(
    queries: jax.Array, keys: jax.Array, lengths: jax.Array, start: jax.Array | int, count: int
) -> jax.Array:
    """Computes dot products of query and key patches, divided by the key's norm.

    A 3x3 patch consists of the strip at its centre and the strips to the left and right, if the
    row has them. A dot product of patches is therefore the sum of three dot products of strips,
    which neighbours share: a third of the multiplications of whole patches.

    Args:
        queries: [B, h, w, 3 * C], `strips` of the halved map.
        keys: [B, h, w, 3 * C], `strips` of the halved map.
        lengths: [B, h, w], norms of the key patches.
        start: Index of the first query in row-major order, at least -2.
        count: Number of queries; the last one may lie up to two past the end of the map. Scores of
            queries outside the map are 0.

    Returns:
        float32 [B, count, K].
    """
    batch, h, w, depth = queries.shape
    padded = jnp.pad(queries.reshape(batch, h * w, depth), ((0, 0), (3, 3), (0, 0)))
    query_strips = lax.dynamic_slice_in_dim(padded, start + 2, count + 2, axis=1)
    products = jnp.einsum(
        "bqd,bkd->bqk",
        query_strips,
        keys.reshape(batch, h * w, depth),
        preferred_element_type=jnp.float32,
    )
    products = jnp.pad(products, ((0, 0), (0, 0), (1, 1)))
    query_column, key_column = ((start + jnp.arange(count)) % w)[:, None], jnp.arange(h * w) % w
    has_left = (query_column > 0) & (key_column > 0)
    has_right = (query_column < w - 1) & (key_column < w - 1)
    scores = (
        products[:, :-2, :-2] * has_left + products[:, 1:-1, 1:-1] + products[:, 2:, 2:] * has_right
    )
    return scores / lengths.reshape(batch, 1, h * w)


def match_rows(
    queries: jax.Array, keys: jax.Array, lengths: jax.Array, first: jax.Array | int, rows: int
) -> jax.Array:
    """Computes `match_scores` of `rows` rows of queries, from `first`: float32 [B, R, w, h, w]."""
    batch, h, w, _ = queries.shape
    scores = match_scores(queries, keys, lengths, first * w, rows * w)
    return scores.reshape(batch, rows, w, h, w)


def fused_scores(
    queries: jax.Array, keys: jax.Array, lengths: jax.Array, first: jax.Array | int, rows: int
) -> jax.Array:
    """Computes scores of rows of queries and adds the scores of neighbouring query-key pairs.

    The fused score of a query and a key is the sum of three `match_scores`: of the pair itself, of
    the next query with the next key, and of the previous query with the previous key. This sum is
    taken twice: first with neighbours in row-major order, then on these sums with neighbours in
    column-major order. The end of a row (column) is followed by the start of the next one, as in
    both references. Scores outside the map are 0.

    Args:
        queries: [B, h, w, 3 * C], see `match_scores`.
        keys: [B, h, w, 3 * C], see `match_scores`.
        lengths: [B, h, w], norms of the key patches.
        first: Index of the first row; `first + rows` is at most h.
        rows: Number of rows, R.

    Returns:
        float32 [B, R, w, h, w].
    """
    batch, h, w, _ = queries.shape

    def by_rows(start: jax.Array | int, count: int) -> jax.Array:
        """Sums in row-major order for `count` queries from `start`: [B, rows, w, h, w]."""
        scores = match_scores(queries, keys, lengths, start - 1, count + 2)
        scores = jnp.pad(scores, ((0, 0), (0, 0), (1, 1)))
        scores = scores[:, :-2, :-2] + scores[:, 1:-1, 1:-1] + scores[:, 2:, 2:]
        return scores.reshape(batch, count // w, w, h, w)

    # In column-major order, the predecessor of a position in row 0 is in row h - 1, one column to
    # the left; the successor of a position in row h - 1 is in row 0, one column to the right.
    last = first + rows
    here = by_rows(first * w, rows * w)
    above = by_rows(jnp.where(first == 0, (h - 1) * w - 1, (first - 1) * w), w)
    below = by_rows(jnp.where(last == h, 1, last * w), w)
    above = above.at[:, 0, 0].multiply(first != 0)
    below = below.at[:, 0, -1].multiply(last != h)
    before = jnp.concatenate([above, here[:, :-1]], axis=1)
    after = jnp.concatenate([here[:, 1:], below], axis=1)
    return here + _key_before(before) + _key_after(after)


def _key_before(scores: jax.Array) -> jax.Array:
    """Shifts scores [..., h, w] to the next key in column-major order; the first key gets 0."""
    wrapped = jnp.pad(scores[..., -1:, :-1], [(0, 0)] * (scores.ndim - 1) + [(1, 0)])
    return jnp.concatenate([wrapped, scores[..., :-1, :]], axis=-2)


def _key_after(scores: jax.Array) -> jax.Array:
    """Shifts scores [..., h, w] to the previous key in column-major order; the last key gets 0."""
    wrapped = jnp.pad(scores[..., :1, 1:], [(0, 0)] * (scores.ndim - 1) + [(0, 1)])
    return jnp.concatenate([scores[..., 1:, :], wrapped], axis=-2)


def attend(
    scores: jax.Array, available: jax.Array, *, unavailable: str, softmax_scale: float
) -> jax.Array:
    """Computes the softmax of scores over the available keys.

    Args:
        scores: [B, R, w, h, w].
        available: [B, h, w], 1 for available keys, 0 for the others.
        unavailable: See `contextual_attention`.
        softmax_scale: Inverse temperature.

    Returns:
        Weights [B, R, w, h, w]. If no key is available, the weights and their gradients are 0.
    """
    available = available[:, None, None]
    logits = softmax_scale * scores * available
    if unavailable == "excluded":
        logits = jnp.where(available > 0, logits, EXCLUDED_LOGIT)
    return jax.nn.softmax(logits, axis=(-2, -1)) * available


def copy_strips(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Sums the weighted values of rows of queries, overlaps within a row included.

    A 4x4 patch consists of two strips of 4x2 pixels. An output strip belongs to the patches of two
    queries, to its left and to its right. Both copy from the same strips of `values`, with a
    different weight each. Adding the two weights before the product halves the multiplications.

    Args:
        weights: [B, R, w, h, w], from `attend`.
        values: [B, h, w + 1, D], strips of 4x2 pixels.

    Returns:
        [B, R, w + 1, D].
    """
    to_right = jnp.pad(weights, ((0, 0), (0, 0), (0, 1), (0, 0), (0, 1)))
    to_left = jnp.pad(weights, ((0, 0), (0, 0), (1, 0), (0, 0), (1, 0)))
    return jnp.einsum("bqxky,bkyd->bqxd", (to_right + to_left).astype(values.dtype), values)


def paste(copied: jax.Array) -> jax.Array:
    """Adds up strips of 4x2 pixels [B, h, w + 1, 8 * C], placed every 2 rows: [B, 2h, 2w, C]."""
    batch, h, columns, _ = copied.shape
    upper, lower = jnp.split(copied, 2, axis=-1)
    rows = jnp.pad(upper, ((0, 0), (0, 1), (0, 0), (0, 0)))
    # Each element now holds pixel rows 2i - 1 and 2i.
    rows += jnp.pad(lower, ((0, 0), (1, 0), (0, 0), (0, 0)))
    pixels = rows.reshape(batch, h + 1, columns, 2, -1).swapaxes(2, 3)
    return pixels.reshape(batch, 2 * h + 2, 2 * columns, -1)[:, 1:-1, 1:-1]


def _coverage(h: int, w: int, overlap: str) -> jax.Array:
    """Counts the 4x4 patches that cover each pixel, or returns 4 everywhere: [2h, 2w, 1]."""
    if overlap == "constant":
        return jnp.full((2 * h, 2 * w, 1), 4.0)
    assert overlap == "counted", overlap
    # Within a row, two patches cover each strip; only one covers the first and the last.
    patches = jnp.full((1, h, w + 1, 8), 2.0)
    return paste(patches.at[:, :, jnp.array([0, w])].set(1.0))[0]


def _offsets(best: jax.Array) -> jax.Array:
    """Converts each query's best key, [B, h, w] in row-major order, to int32 [B, h, w, 2]."""
    _, h, w = best.shape
    rows, columns = jnp.divmod(best, w)
    return jnp.stack([rows - jnp.arange(h)[:, None], columns - jnp.arange(w)], axis=-1)
