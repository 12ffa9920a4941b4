"""The package's part of the user's cache folder."""

import os
from pathlib import Path


def folder(name: str) -> Path:
    """Returns a folder in the user's cache, which may not exist yet.

    Raises:
        RuntimeError: The user has no home folder.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "deepfill_jax" / name
