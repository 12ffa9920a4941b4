"""Persistent cache of compiled programs."""

import os

import jax

from deepfill_jax import user_cache


def cache_on_disk() -> None:
    """Enables JAX's compilation cache in the user's cache folder.

    Only commands may call this, because it affects the whole process. A folder that the user has
    set with `JAX_COMPILATION_CACHE_DIR` has priority. If the user's cache folder is not writable,
    the cache stays disabled.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    try:
        folder = user_cache.folder("jax")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # There may be no home folder.
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", f"{folder}")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
