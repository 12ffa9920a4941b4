"""The cache of compiled programs on disk."""

import os
from pathlib import Path

import jax


def cache_on_disk() -> None:
    """Keeps what is compiled in the user's cache folder, for the next start of a command.

    For commands alone, as it is a choice for the whole process. What the user has set by
    `JAX_COMPILATION_CACHE_DIR` stays, and where there is no such folder to write, nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "deepfill_jax" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # The latter where there is no home.
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", f"{folder}")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
