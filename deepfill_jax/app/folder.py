"""The server's folder of temporary files."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "deepfill_"
_LOCK = "lock"  # A file that is locked as long as the process that made the folder lives.


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Makes a folder and removes it at the end; removes the folders of killed processes."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        _remove_abandoned(path)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    try:
        with (folder / "new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Named after it is locked: another server may be looking for abandoned folders.
            (folder / "new").rename(folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError):  # It is locked, belongs to another user, or was removed.
        with path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
