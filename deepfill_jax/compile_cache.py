"""Persistent cache of compiled programs."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from deepfill_jax import distributed, user_cache
from deepfill_jax.errors import UsageError


def enable(folder: str | Path | None = None) -> None:
    """Enables JAX's compilation cache, in the user's cache folder by default.

    Only commands may call this without being asked, because it affects the whole process. If the
    user's cache folder is not writable, the processes of a run do not share it, or the user has set
    `JAX_ENABLE_COMPILATION_CACHE=0`, the cache stays disabled. Several programs may use a folder at
    the same time. A program whose entry cannot be read is compiled again, with a warning.

    Args:
        folder: Where compiled programs are kept; it is created. None: the folder that the user has
            set with `JAX_COMPILATION_CACHE_DIR`, or `jax` in the package's cache folder.

    Raises:
        UsageError: The given folder cannot be created or is not writable.
    """
    if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return
    if folder is None:
        if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
            return
        try:
            folder = user_cache.folder("jax")
        except RuntimeError:  # The user has no home folder.
            return
        if not (_is_writable(folder) and distributed.is_shared(folder)):
            return
    elif not _is_writable(folder):
        raise UsageError(
            f"The folder {folder} for compiled programs is not writable; choose another one."
        )
    jax.config.update("jax_compilation_cache_dir", f"{folder}")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()  # Otherwise JAX ignores the folder if it has compiled before.


def _is_writable(folder: str | Path) -> bool:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
