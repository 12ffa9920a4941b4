"""Pixel formulas: value ranges, masking, compositing and resampling, each defined once.

Images are RGB, [B, H, W, 3]: uint8 in 0..255 on the host, float32 in [-1, 1] in steps and networks.
Masks are [B, H, W, 1], 1 in the hole and 0 on known pixels. The functions take numpy or JAX arrays;
those for values and masks accept any leading axes.
"""

from collections.abc import Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

# An array of either library; functions return the type that they take.
Array = TypeVar("Array", np.ndarray, jax.Array)


def to_float(image: Array) -> Array:
    """Maps 0..255, or 0..65535 for uint16, to float32 in [-1, 1]; numpy stays numpy."""
    white = 65535 if image.dtype == np.uint16 else 255
    # A method of both libraries: jnp would compile a program for every new shape of a numpy array.
    return image.astype(np.float32) / (white / 2) - 1.0


def to_255(image: jax.Array) -> jax.Array:
    """Maps [-1, 1] to float32 in 0..255, the range of the metrics, and clips."""
    return jnp.clip((image + 1.0) * 127.5, 0.0, 255.0)


def to_integers(image: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
    """Maps [-1, 1] to uint8 or uint16 on the host; values are clipped and rounded."""
    half = np.iinfo(dtype).max / 2
    return np.rint(np.clip((np.asarray(image) + 1.0) * half, 0.0, 2 * half)).astype(dtype)


def floats(batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Converts a uint8 batch to float32: image in [-1, 1], mask, and sketch (None if missing)."""
    sketch = batch["sketch"].astype(jnp.float32) if "sketch" in batch else None
    return to_float(batch["image"]), batch["mask"].astype(jnp.float32), sketch


def mask_out(image: jax.Array, mask: jax.Array) -> jax.Array:
    """Sets the hole to 0, which is mid grey in [-1, 1]: the generator's input."""
    return image * (1.0 - mask)


def composite(filled: Array | float, known: Array, mask: Array) -> Array:
    """Takes `filled` inside the hole and `known` outside it; known pixels are exact.

    The references multiply by the mask and add. Selection does the same for binary masks, but keeps
    NaNs of `filled` out of the known pixels.
    """
    # With numpy, jnp would compile a program for every new shape.
    is_jax = any(isinstance(x, jax.Array) for x in (filled, known, mask))
    return (jnp if is_jax else np).where(mask > 0.5, filled, known)


def downsample_nearest(x: jax.Array, factor: int, *, nearest: str) -> jax.Array:
    """Downsamples [B, H, W, C] by an integer factor with nearest-neighbour sampling.

    Libraries round differently. PyTorch takes pixel `factor * i` ("floor"). The TF1 release resizes
    with align_corners, which maps the last pixel to the last pixel ("align_corners").

    Args:
        x: [B, H, W, C]; H and W are multiples of `factor`.
        factor: Integer number of pixels of `x` per pixel of the result.
        nearest: "floor" or "align_corners".

    Returns:
        [B, H / factor, W / factor, C].
    """
    if nearest == "floor":
        return x[:, ::factor, ::factor]
    assert nearest == "align_corners", nearest
    rows, columns = (_aligned_indices(size, size // factor) for size in x.shape[1:3])
    return jnp.asarray(x)[:, rows][:, :, columns]


def _aligned_indices(size: int, new_size: int) -> jax.Array:
    """Returns `new_size` indices from 0 to `size - 1`, both included; halves round up."""
    # TF1 computes in float32; with exact fractions, about every tenth size would differ. JAX is
    # used instead of numpy, because `size` is a symbol when a network is exported for all sizes.
    last, new_last = (jnp.asarray(n - 1, jnp.float32) for n in (size, new_size))
    positions = jnp.arange(new_size, dtype=jnp.float32) * (last / jnp.maximum(new_last, 1.0))
    return jnp.floor(positions + 0.5).astype(jnp.int32)


def upsample2x(x: jax.Array) -> jax.Array:
    """Upsamples [B, H, W, C] 2x by repeating pixels, which is "nearest" in every library."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
