"""Arrays that later starts find in the user's cache folder.

They are not in the workdir, because all runs and the doctor read the same images. Set
`XDG_CACHE_HOME` to a folder that is kept where the home folder is not, as in a container.
"""

import hashlib
import logging
import os
from pathlib import Path

import numpy as np

from deepfill_jax import user_cache
from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.errors import UsageError

logger = logging.getLogger(__name__)


class CachedArray:
    """An array on disk; without a writable cache folder, it is computed at each start."""

    def __init__(self, folder: str, *key: str):
        """Chooses the file: in `folder` of the cache, named by a digest of the key."""
        digest = hashlib.sha256(os.fsencode("\0".join(key))).hexdigest()[:32]
        self._path: Path | None = None
        try:
            self._path = user_cache.folder(folder) / f"{digest}.npy"
        except RuntimeError:  # The user has no home folder.
            logger.info(
                "The user has no home folder for the cache; set XDG_CACHE_HOME to a folder."
            )

    def load(self, dtype: np.dtype) -> np.ndarray | None:
        """Returns the array; None if the file is missing, damaged or of another type."""
        if self._path is None:
            return None
        try:
            array = np.load(self._path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return array if isinstance(array, np.ndarray) and array.dtype == dtype else None

    def save(self, array: np.ndarray) -> None:
        """Replaces the array; a failure is only logged."""
        if self._path is None:
            return
        try:
            with atomic_write(self._path) as unfinished, open(unfinished, "wb") as file:
                np.save(file, array)
        except UsageError as error:
            logger.info("The next start will read all images again: %s", error)
