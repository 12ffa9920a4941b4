"""Copies of published weights in the user's cache folder; a folder for each source."""

import argparse
import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import filelock

from deepfill_jax import user_cache
from deepfill_jax.errors import UsageError
from deepfill_jax.published.addresses import Address, resolve
from deepfill_jax.published.registry import ENTRIES

OFFLINE = "DEEPFILL_OFFLINE"  # Environment variable; any value but 0 forbids downloads.


class ForbidDownloads(argparse.Action):
    """The action of the flag --offline, which holds for the whole process and its children."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any):
        """Makes a flag without a value."""
        text = "use weights from the cache and download none"
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=text)

    def __call__(self, *_: Any) -> None:
        """Sets the environment variable."""
        os.environ[OFFLINE] = "1"


def fetch(source: str) -> Path:
    """Returns the file of published weights, and downloads it if it is not in the cache.

    A file is in the cache only if its checksum is right, as far as the address states one. If
    another process is downloading it, waits for that process.

    Args:
        source: See `addresses.resolve`.

    Raises:
        UsageError: The source has no valid address, its server does not have the file, its checksum
            is wrong, downloads are forbidden, or the cache cannot be written.
        RunError: There is no connection, or the download was interrupted too often.
    """
    address = resolve(source)
    path = _folder(source) / address.file_name
    if path.is_file():
        return path
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise UsageError(
            f"{source} is not in the cache ({path.parent}), and --offline or {OFFLINE} forbids to "
            f"download it. Run `deepfill models download {source}` with a network first."
        )
    try:
        _root().mkdir(parents=True, exist_ok=True)
        with _locked(source):
            if not path.is_file():  # Another process may have downloaded it.
                path.parent.mkdir(exist_ok=True)
                _download(source, address, path)
    except OSError as error:
        raise UsageError(
            f"The cache {path.parent} cannot be written: {error.strerror or error}. The variable "
            "XDG_CACHE_HOME chooses another folder for caches."
        ) from error
    return path


def _folder(source: str) -> Path:
    return _root() / quote(source, safe="")


def _root() -> Path:
    try:
        return user_cache.folder("models")
    except RuntimeError as error:
        raise UsageError(f"There is no cache folder ({error}); set XDG_CACHE_HOME.") from error


@contextlib.contextmanager
def _locked(source: str) -> Iterator[None]:
    """Lets one process at a time change the copy of a source."""
    lock = filelock.FileLock(f"{_folder(source)}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"Waiting for another process that downloads {source}.", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(source: str, address: Address, path: Path) -> None:
    """Downloads a file, checks it and puts it into its place."""
    print(f"Downloading {source} from {address.url}", file=sys.stderr, flush=True)
    started, unfinished = time.monotonic(), path.with_name(f"{path.name}.part")
    is_resumed = unfinished.is_file() and bool(address.sha256)
    _get(source, address, unfinished, resume=is_resumed)
    digest = _sha256(unfinished)
    if is_resumed and not digest.startswith(address.sha256):
        _get(source, address, unfinished, resume=False)
        digest = _sha256(unfinished)
    if not digest.startswith(address.sha256):
        unfinished.unlink()
        raise UsageError(
            f"{address.url} has another SHA-256 than stated: {digest} does not begin with "
            f"{address.sha256}. The file is damaged or was replaced, and was deleted; try again."
            + f" If you trust it, give the address {address.url}#sha256={digest}"
            * (source not in ENTRIES)
        )
    unfinished.replace(path)
    size, seconds = path.stat().st_size / 1e6, time.monotonic() - started
    checked = "as stated" if address.sha256 else "which no address states, so it was not checked"
    print(f"{size:.1f} MB in {seconds:.1f} s: {path}", file=sys.stderr)
    print(f"SHA-256 {digest}, {checked}", file=sys.stderr)
    if source in ENTRIES:
        print(f"License of {source}: {ENTRIES[source].license}.", file=sys.stderr, flush=True)


def _get(source: str, address: Address, unfinished: Path, *, resume: bool) -> None:
    # Both are imported here, because they take a quarter of a second.
    if address.hub_file:
        from deepfill_jax.published import hub

        hub.download(*address.hub_file, unfinished)
    else:
        from deepfill_jax.published import download

        download.download(address.url, unfinished, name=source, resume=resume)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached() -> dict[str, Path]:
    """Returns the downloaded files by their source; files converted from them lie beside them."""
    found: dict[str, Path] = {}
    with contextlib.suppress(UsageError):  # There may be no home folder, and so no cache.
        for folder in sorted(_root().glob("*/")):
            source = unquote(folder.name)
            with contextlib.suppress(UsageError):  # Another version may have known other names.
                if (path := folder / resolve(source).file_name).is_file():
                    found[source] = path
    return found


def find_source(path: Path) -> str | None:
    """Returns the source of a file in the cache, None for other files."""
    with contextlib.suppress(UsageError):  # There may be no home folder, and so no cache.
        if path.parent.parent == _root():
            return unquote(path.parent.name)
    return None


def remove(source: str) -> None:
    """Deletes the copy of a source.

    Raises:
        UsageError: There is none, or it cannot be deleted.
    """
    folder = _folder(source)
    if not folder.is_dir():
        raise UsageError(f"{source} is not in the cache; `deepfill models` lists what is.")
    try:
        with _locked(source):
            shutil.rmtree(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be deleted: {error.strerror or error}.") from error
