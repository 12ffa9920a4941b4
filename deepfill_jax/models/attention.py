"""Contextual attention: fills the hole's features with patches copied from known places.

Yu et al., "Generative Image Inpainting with Contextual Attention" (CVPR 2018), section 4.1,
https://arxiv.org/abs/1801.07892, as DeepFillv2 uses it: patches are compared and copied on the
map at a quarter of the picture's size, one query for every 2x2 pixels of it.

    match   how alike are the 3x3 patches around each query and each key, on the halved map?
    fuse    neighbours of a query should copy neighbours of its key: add scores along diagonals
    attend  softmax over the keys; keys that hold hole pixels are not available
    paste   copy the 4x4 patches of the full map, by weight, and divide where they overlap

Nothing here has parameters, so all are functions. Letters: B batch, h w the halved map's sides,
C channels, Q = h * w queries, K = h * w keys, both in row-major order, D patch length.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from deepfill_jax import image

SOFTMAX_SCALE = 10.0
NORM_FLOOR = 1e-4  # Keys shorter than this are divided by it.
EXCLUDED = -1e30  # As good as minus infinity, and finite where every key is excluded.


class Attention(NamedTuple):
    """What `contextual_attention` returns."""

    output: jax.Array  # [B, 2h, 2w, C], the filled map.
    weights: jax.Array  # float32 [B, Q, K]: how much of key k query q copies.


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
        fused: Fuse the scores.
        softmax_scale: The inverse temperature.

    Returns:
        Output and weights. Where no key is available, both are 0.
    """
    small_queries, small_keys = (image.shrink(x, 2, nearest=nearest) for x in (queries, keys))
    small_mask = image.shrink(mask, 2, nearest=nearest)
    h, w = small_keys.shape[1:3]

    scores = match_scores(patches(small_queries, 3), patches(small_keys, 3))
    scores = fuse(scores, h, w) if fused else scores
    available = 1.0 - jnp.max(patches(small_mask, 3), axis=-1)  # [B, K]
    weights = attend(scores, available, unavailable=unavailable, softmax_scale=softmax_scale)

    values = patches(keys, 4, stride=2)
    pasted = paste(jnp.einsum("bqk,bkd->bqd", weights.astype(values.dtype), values), h, w)
    return Attention(pasted / _coverage(h, w, overlap).astype(pasted.dtype), weights)


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


def match_scores(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Dot product of each query [B, Q, D] with each key [B, K, D] of length 1: float32 [B, Q, K].

    Only the keys are normalised, so a score is the cosine times the query's length.
    """
    # The floor is under the root: its gradient is finite at a patch of zeros.
    square = jnp.sum(jnp.square(keys.astype(jnp.float32)), axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.maximum(square, NORM_FLOOR**2))  # [B, K, 1]
    return jnp.einsum(
        "bqd,bkd->bqk",
        queries,
        (keys / length).astype(queries.dtype),
        preferred_element_type=jnp.float32,
    )


def fuse(scores: jax.Array, h: int, w: int) -> jax.Array:
    """Adds to each score those of the neighbours of query and key, first along rows, then columns.

    [B, Q, K] -> [B, Q, K]. A neighbour is the next in row-major (then column-major) order, so the
    end of a row is the neighbour of the next row's start, as in both references.
    """
    scores = _add_diagonal_neighbours(scores)
    scores = _add_diagonal_neighbours(_swap_order(scores, h, w))
    return _swap_order(scores, w, h)


def _add_diagonal_neighbours(scores: jax.Array) -> jax.Array:
    """s[q, k] + s[q - 1, k - 1] + s[q + 1, k + 1], zeros outside."""
    padded = jnp.pad(scores, ((0, 0), (1, 1), (1, 1)))
    return padded[:, :-2, :-2] + scores + padded[:, 2:, 2:]


def _swap_order(scores: jax.Array, h: int, w: int) -> jax.Array:
    """Re-sorts queries and keys of an h x w map from row-major to column-major order."""
    batch, positions, _ = scores.shape
    grid = scores.reshape(batch, h, w, h, w).transpose(0, 2, 1, 4, 3)
    return grid.reshape(batch, positions, positions)


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


def offsets(weights: jax.Array, h: int, w: int) -> jax.Array:
    """Where each query copies most from, as (down, right) steps on the halved map.

    [B, Q, K] -> int32 [B, h, w, 2].
    """
    best = jnp.argmax(weights, axis=-1).reshape(-1, h, w)
    rows, columns = jnp.divmod(best, w)
    return jnp.stack([rows - jnp.arange(h)[:, None], columns - jnp.arange(w)], axis=-1)
