"""Limits of the server's work and files, and their defaults."""

from typing import NamedTuple

from deepfill_jax.pictures import MAX_PIXELS

MAX_ORIGINAL_PIXELS = 1_000_000
MAX_SECONDS = 300.0
MAX_STORED_BYTES = 10_000_000_000  # Limit of all temporary files, see `quota.Quota`.


class Limits(NamedTuple):
    """Limits of the work for one request."""

    max_pixels: int = MAX_PIXELS  # Limit of an image, before and after it is extended.
    # For the strategy "original", whose time grows with the square of the number of pixels.
    max_original_pixels: int = MAX_ORIGINAL_PIXELS
    max_seconds: float = MAX_SECONDS  # Without waiting.
