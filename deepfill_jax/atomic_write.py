"""Atomic writing of files, and whether a file that is there is up to date."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepfill_jax.errors import UsageError
from deepfill_jax.local_paths import require_local


@contextlib.contextmanager
def atomic_write(path: Path, *, make_parents: bool = True) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` at the end of the context.

    After an error, the temporary file is deleted and `path` is unchanged.

    Args:
        path: The file to write. Readers see either the old or the new file, never a part of it.
        make_parents: Whether to create missing parent folders.

    Raises:
        UsageError: The file cannot be written, or the path is remote storage.
    """
    require_local("output", path)
    unfinished = unfinished_path(path)
    try:
        if make_parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):  # The folder may be missing, or be a file.
            unfinished.unlink(missing_ok=True)


def unfinished_path(path: Path) -> Path:
    """Returns the hidden temporary path of `atomic_write`; a killed process may leave it behind."""
    # The name is a digest, because a long name with another suffix could exceed the system's limit.
    return path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp")


def is_current(path: Path, sources: Iterable[Path | None]) -> bool:
    """Whether a file exists and none of the files that it was made from was modified after it.

    A source that cannot be read counts as modified, so that making the file again reports it.
    """
    try:
        written = path.stat().st_mtime_ns
        return all(x.stat().st_mtime_ns <= written for x in sources if x is not None)
    except OSError:
        return False
