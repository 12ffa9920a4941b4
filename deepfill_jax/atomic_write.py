"""Files that appear whole or not at all."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from deepfill_jax.errors import UsageError


@contextlib.contextmanager
def atomic_write(path: Path, *, make_parents: bool = True) -> Iterator[Path]:
    """Gives another path to write to, which then replaces `path`; after a failure it is deleted.

    Args:
        path: The file to write. A reader sees the old file or the new one, never a part.
        make_parents: Create the folders that it lies in.

    Raises:
        UsageError: It cannot be written there.
    """
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
    """Returns the hidden path that `atomic_write` gives; a killed run may leave a file there."""
    # A digest, because a long name with a suffix more may be longer than the system allows.
    return path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.tmp")
