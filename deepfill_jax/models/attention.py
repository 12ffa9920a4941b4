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
        nearest: Rule of the halving, see `image.shrink`.
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
    small_queries, small_keys = (image.shrink(x, 2, nearest=nearest) for x in (queries, keys))
    small_mask = image.shrink(mask, 2, nearest=nearest)
    batch, h, w, _ = small_keys.shape

    query_patches, key_patches = patches(small_queries, 3), unit(patches(small_keys, 3))
    available = 1.0 - jnp.max(patches(small_mask, 3), axis=-1)  # [B, K]
    values = patches(keys, 4, stride=2)

    def copy_rows(first: jax.Array | int, rows: int) -> tuple[jax.Array, jax.Array]:
        if fused:
            scores = fused_scores(query_patches, key_patches, first, rows=rows, h=h, w=w)
        else:
            some = lax.dynamic_slice_in_dim(query_patches, first * w, rows * w, axis=1)
            scores = match_scores(some, key_patches)
        scores = scores.reshape(batch, rows * w, h * w)
        weights = attend(scores, available, unavailable=unavailable, softmax_scale=softmax_scale)
        copied = jnp.einsum("bqk,bkd->bqd", weights.astype(values.dtype), values)
        return copied, jnp.argmax(weights, axis=-1)

    copied, best = _in_blocks(copy_rows, h, block_rows(batch, h, w, memory))
    pasted = paste(copied, h, w)
    output = pasted / _coverage(h, w, overlap).astype(pasted.dtype)
    return Attention(output, _offsets(best.reshape(batch, h, w)))


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
    """`copy_rows(first, rows)` for all h rows, `rows` at a time: arrays [B, R * w, ...]."""
    if rows == h:
        return copy_rows(0, h)
    # The last block reaches back over rows of the one before it, which are cut off again.
    firsts = jnp.minimum(jnp.arange(0, h, rows), h - rows)
    # Without `checkpoint`, the backward pass would keep the scores of every block.
    blocks = lax.map(jax.checkpoint(lambda first: copy_rows(first, rows)), firsts)

    def joined(x: jax.Array) -> jax.Array:  # [blocks, B, R * w, ...]
        width = x.shape[2] // rows
        new = (h - (len(firsts) - 1) * rows) * width
        return jnp.concatenate([*x[:-1], x[-1][:, -new:]], axis=1)

    return jax.tree.map(joined, blocks)


def patches(x: jax.Array, size: int, *, stride: int = 1) -> jax.Array:
    """Cuts [B, H, W, C] into [B, (H / stride) * (W / stride), size * size * C], zeros outside.

    A patch of odd size is centred on its pixel; one of size 4 and stride 2 on its 2x2 pixels.
    """
    batch, height, width, channels = x.shape
    before = (size - stride) // 2
    x = jnp.pad(x, ((0, 0), (before, size), (before, size), (0, 0)))
    shifted = [
        x[:, dy : dy + height : stride, dx : dx + width : stride]
        for dy in range(size)
        for dx in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1).reshape(batch, -1, size * size * channels)


def unit(keys: jax.Array) -> jax.Array:
    """Patches [B, K, D] divided by their length, or by `NORM_FLOOR`."""
    # The floor is under the root: its gradient is finite at a patch of zeros.
    square = jnp.sum(jnp.square(keys.astype(jnp.float32)), axis=-1, keepdims=True)
    return (keys / jnp.sqrt(jnp.maximum(square, NORM_FLOOR**2))).astype(keys.dtype)


def match_scores(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Dot products of patches [B, Q, D] and [B, K, D]: float32 [B, Q, K]."""
    return jnp.einsum("bqd,bkd->bqk", queries, keys, preferred_element_type=jnp.float32)


def fused_scores(
    queries: jax.Array, keys: jax.Array, first: jax.Array | int, *, rows: int, h: int, w: int
) -> jax.Array:
    """Scores of some rows of queries, with their neighbours' added: float32 [B, R, w, h, w].

    A score is the dot product of a query's patch and a key's patch of length 1, so it is the cosine
    times the query's length. To each, the scores of the next query with the next key are added, and
    of the one before with the one before: first next in row-major order, then, of these sums, next
    in column-major order. After the end of a row (column) comes the start of the next, as in both
    references; before the map's first and after its last position all is 0.

    Args:
        queries: [B, Q, D] patches.
        keys: [B, K, D] patches of length 1.
        first: The first of the rows; `first + rows` is h at most.
        rows: R.
        h: Rows of the map.
        w: Columns of the map.
    """
    padded = jnp.pad(queries, ((0, 0), (2, 2), (0, 0)))

    def by_rows(start: jax.Array | int, count: int) -> jax.Array:
        """[B, rows, w, h, w] of the `count` queries from `start` on."""
        some = lax.dynamic_slice_in_dim(padded, start + 1, count + 2, axis=1)
        scores = match_scores(some, keys)
        scores = jnp.pad(scores, ((0, 0), (0, 0), (1, 1)))
        scores = scores[:, :-2, :-2] + scores[:, 1:-1, 1:-1] + scores[:, 2:, 2:]
        return scores.reshape(-1, count // w, w, h, w)

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
    """Softmax of the scores [B, Q, K] over the keys that are `available` [B, K]: [B, Q, K].

    See `contextual_attention`; where no key is available, the weights are 0 and so are gradients.
    """
    available = available[:, None, :]
    logits = softmax_scale * scores * available
    if unavailable == "excluded":
        logits = jnp.where(available > 0, logits, EXCLUDED)
    return jax.nn.softmax(logits, axis=-1) * available


def paste(patches: jax.Array, h: int, w: int) -> jax.Array:
    """Adds up 4x4 patches [B, h * w, 16 * C] laid every 2 pixels: [B, 2h, 2w, C]."""
    batch = patches.shape[0]
    # A patch is 2x2 cells of 2x2 pixels; the cells of neighbouring patches fall on one another.
    patches = patches.reshape(batch, h, w, 2, 2, 2, 2, -1)  # ..., cell y, y, cell x, x, C
    cells = sum(
        jnp.pad(
            patches[:, :, :, down, :, right],
            ((0, 0), (down, 1 - down), (right, 1 - right), (0, 0), (0, 0), (0, 0)),
        )
        for down in (0, 1)
        for right in (0, 1)
    )  # [B, h + 1, w + 1, 2, 2, C]
    pixels = cells.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * h + 2, 2 * w + 2, -1)
    return pixels[:, 1:-1, 1:-1]


def _coverage(h: int, w: int, overlap: str) -> jax.Array:
    """How many 4x4 patches `paste` lays on each pixel, or 4 everywhere: [2h, 2w, 1]."""
    if overlap == "constant":
        return jnp.full((2 * h, 2 * w, 1), 4.0)
    assert overlap == "counted", overlap
    return paste(jnp.ones((1, h * w, 16)), h, w)[0]


def _offsets(best: jax.Array) -> jax.Array:
    """From each query's best key, [B, h, w] in row-major order, to int32 [B, h, w, 2]."""
    _, h, w = best.shape
    rows, columns = jnp.divmod(best, w)
    return jnp.stack([rows - jnp.arange(h)[:, None], columns - jnp.arange(w)], axis=-1)
