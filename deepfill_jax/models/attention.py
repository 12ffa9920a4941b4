"""Contextual attention: fills the hole's features with patches copied from known places.

Yu et al., "Generative Image Inpainting with Contextual Attention" (CVPR 2018), section 4.1,
https://arxiv.org/abs/1801.07892, as DeepFillv2 uses it: patches are compared and copied on the
map at a quarter of the picture's size, one query for every 2x2 pixels of it.

    match   how alike are the 3x3 patches around each query and each key, on the halved map?
    fuse    neighbours of a query should copy neighbours of its key: add scores along diagonals
    attend  softmax over the keys; keys that hold hole pixels are not available
    paste   copy the 4x4 patches of the full map, by weight, and divide where they overlap

There is a score for every query and key, so scores grow with the square of the picture's area.
The first three steps therefore take a few rows of queries at a time, if memory is short.

Nothing here has parameters, so all are functions. Letters: B batch, h w the halved map's sides,
C channels, Q = K = h * w queries and keys, in row-major order, D patch length, R rows of queries.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from deepfill_jax import image

SOFTMAX_SCALE = 10.0
NORM_FLOOR = 1e-4  # Keys shorter than this are divided by it.
SCORE_COPIES = 4  # Scores, sums, logits and weights may exist at once.
EXCLUDED = -1e30  # As good as minus infinity, and finite where every key is excluded.


class Attention(NamedTuple):
    """What `contextual_attention` returns."""

    output: jax.Array  # [B, 2h, 2w, C], the filled map.
    offsets: jax.Array  # int32 [B, h, w, 2]: the key copied most, as (down, right) from the query.


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
    """Rebuilds the map `queries` from patches of the map `keys` that hold no hole pixel.

    Args:
        queries: [B, H, W, C] features to rebuild; H and W are even.
        keys: [B, H, W, C] features to copy from; the networks pass the same map twice.
        mask: [B, H, W, 1], 1 in the hole, one per example.
        nearest: Rule of the halving, see `image.downsample_nearest`.
        unavailable: "zero_logit": a key with hole pixels enters the softmax with logit 0 and its
            weight is dropped, so that weights add up to less than 1 (TF1 release). "excluded": it
            does not enter (MMagic).
        overlap: "constant": divide the pasted map by 4, which darkens its outermost pixels, where
            fewer patches overlap (TF1 release). "counted": by the number of patches (MMagic).
        fused: Add the neighbours' scores, see `fused_scores`.
        softmax_scale: The inverse temperature.
        memory: About how many bytes scores may take, but at least a row of queries' worth; None
            computes all rows at once. It does not change the result.

    Returns:
        Output and offsets. Where no key is available, the output is 0.
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
    """How many of h rows of queries to compute at once, in blocks of nearly one size."""
    if memory is None:
        return h
    row = SCORE_COPIES * 4 * batch * w * h * w
    blocks = -(-h // max(memory // row, 1))
    return -(-h // blocks)


def _in_blocks(
    copy_rows: Callable[[jax.Array | int, int], tuple[jax.Array, ...]], h: int, rows: int
) -> tuple[jax.Array, ...]:
    """`copy_rows(first, rows)` for all h rows, `rows` at a time: arrays [B, h, ...]."""
    if rows == h:
        return copy_rows(0, h)
    # The last block reaches back over rows of the one before it, which are cut off again.
    firsts = jnp.minimum(jnp.arange(0, h, rows), h - rows)
    # Without `checkpoint`, the backward pass would keep the scores of every block.
    blocks = lax.map(jax.checkpoint(lambda first: copy_rows(first, rows)), firsts)

    def joined(x: jax.Array) -> jax.Array:  # [blocks, B, R, ...]
        new = h - (len(firsts) - 1) * rows
        return jnp.concatenate([*x[:-1], x[-1][:, -new:]], axis=1)

    return jax.tree.map(joined, blocks)


def strips(x: jax.Array, size: int, *, stride: int = 1) -> jax.Array:
    """Stacks `size` rows of [B, H, W, C] in each: [B, H / stride, W, size * C], zeros outside.

    One of odd size is centred on its row; one of size 4 and stride 2 on its 2 rows.
    """
    height = x.shape[1]
    before = (size - stride) // 2
    x = jnp.pad(x, ((0, 0), (before, size), (0, 0), (0, 0)))
    return jnp.concatenate([x[:, i : i + height : stride] for i in range(size)], axis=-1)


def pair_columns(x: jax.Array) -> jax.Array:
    """Lays pixel columns 2i - 1 and 2i of [B, H, W, C] into one: [B, H, W / 2 + 1, 2 * C]."""
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    return x.reshape(*x.shape[:2], -1, 2 * x.shape[-1])


def patch_lengths(x: jax.Array) -> jax.Array:
    """Euclidean lengths of the 3x3 patches of [B, H, W, C], or `NORM_FLOOR`: float32 [B, H, W]."""
    square = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1)
    square = lax.reduce_window(square, 0.0, lax.add, (1, 3, 3), (1, 1, 1), "SAME")
    # The floor is under the root: its gradient is finite at a patch of zeros.
    return jnp.sqrt(jnp.maximum(square, NORM_FLOOR**2))


def match_scores(
    queries: jax.Array, keys: jax.Array, lengths: jax.Array, start: jax.Array | int, count: int
) -> jax.Array:
    """Dot products of the patches around queries and keys, by the key's length.

    The patch around a position is its strip and those to its left and right, where the row has
    them; so is the product, which takes a third of the multiplications of whole patches.

    Args:
        queries: [B, h, w, 3 * C], `strips` of the halved map.
        keys: Likewise.
        lengths: [B, h, w], of the keys' patches.
        start: The first query, in row-major order, at least -2.
        count: How many, up to two past the last. Before and after the map all is 0.

    Returns:
        float32 [B, count, K].
    """
    batch, h, w, depth = queries.shape
    padded = jnp.pad(queries.reshape(batch, h * w, depth), ((0, 0), (3, 3), (0, 0)))
    some = lax.dynamic_slice_in_dim(padded, start + 2, count + 2, axis=1)
    products = jnp.einsum(
        "bqd,bkd->bqk",
        some,
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
    """`match_scores` of some rows of queries: [B, R, w, h, w]."""
    batch, h, w, _ = queries.shape
    scores = match_scores(queries, keys, lengths, first * w, rows * w)
    return scores.reshape(batch, rows, w, h, w)


def fused_scores(
    queries: jax.Array, keys: jax.Array, lengths: jax.Array, first: jax.Array | int, rows: int
) -> jax.Array:
    """Scores of some rows of queries, with their neighbours' added: float32 [B, R, w, h, w].

    To each of `match_scores`, the score of the next query with the next key is added, and of the
    one before with the one before: first next in row-major order, then, of these sums, next in
    column-major order. After the end of a row (column) comes the start of the next, as in both
    references; before the map's first and after its last position all is 0.

    Args:
        queries: See `match_scores`, as the next two.
        keys: Strips.
        lengths: Of the keys' patches.
        first: The first of the rows; `first + rows` is h at most.
        rows: R.
    """
    batch, h, w, _ = queries.shape

    def by_rows(start: jax.Array | int, count: int) -> jax.Array:
        """[B, rows, w, h, w] of the `count` queries from `start` on."""
        scores = match_scores(queries, keys, lengths, start - 1, count + 2)
        scores = jnp.pad(scores, ((0, 0), (0, 0), (1, 1)))
        scores = scores[:, :-2, :-2] + scores[:, 1:-1, 1:-1] + scores[:, 2:, 2:]
        return scores.reshape(batch, count // w, w, h, w)

    # In column-major order, row h - 1 comes before row 0, one column to the left, and row 0 comes
    # after row h - 1, one column to the right.
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
    """[..., h, w]: at each key the score of the one before it in column-major order, or 0."""
    wrapped = jnp.pad(scores[..., -1:, :-1], [(0, 0)] * (scores.ndim - 1) + [(1, 0)])
    return jnp.concatenate([wrapped, scores[..., :-1, :]], axis=-2)


def _key_after(scores: jax.Array) -> jax.Array:
    """[..., h, w]: at each key the score of the one after it in column-major order, or 0."""
    wrapped = jnp.pad(scores[..., :1, 1:], [(0, 0)] * (scores.ndim - 1) + [(0, 1)])
    return jnp.concatenate([scores[..., 1:, :], wrapped], axis=-2)


def attend(
    scores: jax.Array, available: jax.Array, *, unavailable: str, softmax_scale: float
) -> jax.Array:
    """Softmax of the scores [B, R, w, h, w] over the keys that are `available` [B, h, w].

    See `contextual_attention`; where no key is available, the weights are 0 and so are gradients.
    """
    available = available[:, None, None]
    logits = softmax_scale * scores * available
    if unavailable == "excluded":
        logits = jnp.where(available > 0, logits, EXCLUDED)
    return jax.nn.softmax(logits, axis=(-2, -1)) * available


def copy_strips(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Adds up what rows of queries copy, where it overlaps in a row: [B, R, w + 1, D].

    A 4x4 patch is two strips of 4x2 pixels. A strip lies in the patch of the query to its left
    and in that of the one to its right, which copy by two weights the same key's strip, or its
    neighbour's; adding these weights first halves the multiplications.

    Args:
        weights: [B, R, w, h, w].
        values: [B, h, w + 1, D].
    """
    to_right = jnp.pad(weights, ((0, 0), (0, 0), (0, 1), (0, 0), (0, 1)))
    to_left = jnp.pad(weights, ((0, 0), (0, 0), (1, 0), (0, 0), (1, 0)))
    return jnp.einsum("bqxky,bkyd->bqxd", (to_right + to_left).astype(values.dtype), values)


def paste(copied: jax.Array) -> jax.Array:
    """Adds up strips of 4x2 pixels [B, h, w + 1, 8 * C] laid every 2 rows: [B, 2h, 2w, C]."""
    batch, h, columns, _ = copied.shape
    upper, lower = jnp.split(copied, 2, axis=-1)
    rows = jnp.pad(upper, ((0, 0), (0, 1), (0, 0), (0, 0)))
    rows += jnp.pad(lower, ((0, 0), (1, 0), (0, 0), (0, 0)))  # Pixel rows 2i - 1 and 2i in each.
    pixels = rows.reshape(batch, h + 1, columns, 2, -1).swapaxes(2, 3)
    return pixels.reshape(batch, 2 * h + 2, 2 * columns, -1)[:, 1:-1, 1:-1]


def _coverage(h: int, w: int, overlap: str) -> jax.Array:
    """How many 4x4 patches `paste` lays on each pixel, or 4 everywhere: [2h, 2w, 1]."""
    if overlap == "constant":
        return jnp.full((2 * h, 2 * w, 1), 4.0)
    assert overlap == "counted", overlap
    patches = jnp.full((1, h, w + 1, 8), 2.0)  # On the strips of a row, which overlap within it.
    return paste(patches.at[:, :, jnp.array([0, w])].set(1.0))[0]


def _offsets(best: jax.Array) -> jax.Array:
    """From each query's best key, [B, h, w] in row-major order, to int32 [B, h, w, 2]."""
    _, h, w = best.shape
    rows, columns = jnp.divmod(best, w)
    return jnp.stack([rows - jnp.arange(h)[:, None], columns - jnp.arange(w)], axis=-1)
