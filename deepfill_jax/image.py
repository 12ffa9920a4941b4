"""Value ranges, masks and composites: the one home of each pixel formula.

An image is uint8 in 0..255 on the host and float32 in [-1, 1] inside steps and networks, RGB,
[B, H, W, 3]. A mask is 1 in the hole and 0 on known pixels, [B, H, W, 1]. Every function takes
numpy or JAX arrays, and any leading axes.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np


def to_float(image: jax.Array) -> jax.Array:
    """Maps 0..255, or uint16's 0..65535, to float32 in [-1, 1]."""
    full = 65535 if image.dtype == np.uint16 else 255
    return jnp.asarray(image, jnp.float32) / (full / 2) - 1.0


def to_255(image: jax.Array) -> jax.Array:
    """Maps [-1, 1] to float32 in 0..255, clipped; the range that the metrics are defined on."""
    return jnp.clip((image + 1.0) * 127.5, 0.0, 255.0)


def to_integers(image: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
    """Maps [-1, 1] to the range of uint8 or uint16 on the host, clipped, to the nearest value."""
    half = np.iinfo(dtype).max / 2
    return np.rint(np.clip((np.asarray(image) + 1.0) * half, 0.0, 2 * half)).astype(dtype)


def floats(batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Image in [-1, 1], mask and sketch of a batch of uint8, as float32; no sketch is None."""
    mask, sketch = (
        batch[name].astype(jnp.float32) if name in batch else None for name in ("mask", "sketch")
    )
    return to_float(batch["image"]), mask, sketch


def mask_out(image: jax.Array, mask: jax.Array) -> jax.Array:
    """Sets the hole to 0, mid grey in [-1, 1]: what the generator sees."""
    return image * (1.0 - mask)


def composite(filled: jax.Array, known: jax.Array, mask: jax.Array) -> jax.Array:
    """Takes `filled` inside the hole and `known` outside it; known pixels are exact.

    Selecting, where the references multiply by the mask and add, keeps a NaN of the fill out of
    the known pixels. The mask must be binary.
    """
    return jnp.where(mask > 0.5, filled, known)


def downsample_nearest(x: jax.Array, factor: int, *, nearest: str) -> jax.Array:
    """Divides height and width of [B, H, W, C] by `factor`, taking the nearest pixel.

    "Nearest" is not one rule. PyTorch takes pixel `factor * i` ("floor"). The TF1 release resizes
    with align_corners, which maps the last pixel to the last ("align_corners").

    Args:
        x: [B, H, W, C]; H and W are multiples of `factor`.
        factor: Whole number of pixels of `x` a pixel of the result.
        nearest: "floor" or "align_corners".
    """
    if nearest == "floor":
        return x[:, ::factor, ::factor]
    assert nearest == "align_corners", nearest
    rows, columns = (_aligned_indices(size, size // factor) for size in x.shape[1:3])
    return jnp.asarray(x)[:, rows][:, :, columns]


def _aligned_indices(size: int, shrunk: int) -> jax.Array:
    """The `shrunk` of `size` positions, first and last included; halves round up, in float32."""
    # Float32 is part of the rule: with exact fractions, every tenth size or so would differ. JAX's,
    # not numpy's, because `size` has no value yet where a network is exported for all sizes.
    last, last_shrunk = (jnp.asarray(n - 1, jnp.float32) for n in (size, shrunk))
    positions = jnp.arange(shrunk, dtype=jnp.float32) * (last / jnp.maximum(last_shrunk, 1.0))
    return jnp.floor(positions + 0.5).astype(jnp.int32)


def upsample2x(x: jax.Array) -> jax.Array:
    """Doubles height and width of [B, H, W, C] by repeating pixels: nearest, in every library."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
