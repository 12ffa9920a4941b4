"""Weights that others published: known names, addresses, and copies in the user's cache.

`fetch` returns the file of a name or an address, and downloads it on first use.
"""

from deepfill_jax.published.addresses import is_remote
from deepfill_jax.published.cache import (
    OFFLINE,
    ForbidDownloads,
    cached,
    fetch,
    find_source,
    remove,
)
from deepfill_jax.published.registry import BY_HAND, ENTRIES

__all__ = [
    "BY_HAND",
    "ENTRIES",
    "OFFLINE",
    "ForbidDownloads",
    "cached",
    "fetch",
    "find_source",
    "is_remote",
    "remove",
]
