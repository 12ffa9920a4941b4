"""Checks which image files can be used, and remembers the result by path, size and time.

Each source has one record, so that the next start decodes only files that are new or changed.
"""

import concurrent.futures
import enum
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import PIL

from deepfill_jax import __version__
from deepfill_jax.data.array_cache import CachedArray
from deepfill_jax.pictures import rgb

logger = logging.getLogger(__name__)

SAVE_SECONDS = 60.0  # Interval in which a long check reports and saves its progress.
_CHECK_THREADS = 16  # More threads than cores, because on network disks a check mostly waits.
_FILES_PER_TASK = 256
# A digest of path, size and modification time, and a `State`.
_ENTRY = np.dtype([("key", "<u8"), ("state", "u1")])


class State(enum.IntEnum):
    """Whether a file can be used. UNREACHABLE is an I/O error, which is not remembered."""

    USABLE, TRANSPARENT, DAMAGED, UNREACHABLE = range(4)


def check(name: str, paths: Sequence[str], root: str) -> np.ndarray:
    """Returns the `State` of each file, uint8 [N].

    Args:
        name: The source specification.
        paths: The files.
        root: The folder of the source, whose own path is not part of a file's digest.
    """
    # Another version of the package or of Pillow, or a new plugin of Pillow, may read other files.
    versions = (__version__, PIL.__version__, *sorted(rgb.suffixes()))
    record = CachedArray("checked_images", os.path.abspath(root), os.path.basename(name), *versions)
    keys = np.concatenate([np.empty(0, "<u8"), *_in_parts(_keys, paths, root)])
    states = _known_states(keys, record)
    todo = np.flatnonzero(states == State.UNREACHABLE)
    logger.info(
        "%s: %d image files, %d of them unchanged since an earlier check; checking %d.",
        name,
        len(paths),
        len(paths) - len(todo),
        len(todo),
    )
    done, saved = 0, time.monotonic()
    for part in _in_parts(_states, [paths[i] for i in todo.tolist()]):
        states[todo[done : done + len(part)]] = part
        done += len(part)
        if time.monotonic() - saved > SAVE_SECONDS:
            logger.info("%s: %d of %d image files are checked.", name, done, len(todo))
            _save(record, keys, states)
            saved = time.monotonic()
    if done:
        _save(record, keys, states)
    return states


def _in_parts(
    function: Callable[..., np.ndarray], paths: Sequence[str], *arguments: object
) -> Iterator[np.ndarray]:
    """Applies a function to parts of the paths in threads; yields the results in order."""
    parts = [paths[i : i + _FILES_PER_TASK] for i in range(0, len(paths), _FILES_PER_TASK)]
    with concurrent.futures.ThreadPoolExecutor(_CHECK_THREADS) as pool:
        yield from pool.map(lambda part: function(part, *arguments), parts)


def _keys(paths: Sequence[str], root: str) -> np.ndarray:
    """Returns a digest of path, size and modification time of each file; 0 if it is missing."""
    digests = b""
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError:
            digests += bytes(8)
            continue
        text = f"{path.removeprefix(root)}\0{stat.st_size}\0{stat.st_mtime_ns}"
        digests += hashlib.blake2b(os.fsencode(text), digest_size=8).digest()
    return np.frombuffer(digests, "<u8")


def _states(paths: Sequence[str]) -> np.ndarray:
    return np.array([_state(path) for path in paths], np.uint8)


def _state(path: str) -> State:
    try:
        rgb.check(path)
    except rgb.TransparentImageError:
        return State.TRANSPARENT
    except rgb.UnreadableImageError as error:
        cause = error.__cause__
        # Errors of the system have a number, those of Pillow about the content do not.
        passing = isinstance(cause, MemoryError) or getattr(cause, "errno", None) is not None
        return State.UNREACHABLE if passing else State.DAMAGED
    return State.USABLE


def _known_states(keys: np.ndarray, record: CachedArray) -> np.ndarray:
    """Returns the recorded states, UNREACHABLE for files that the record does not hold."""
    states = np.full(len(keys), State.UNREACHABLE, np.uint8)
    known = record.load(_ENTRY)
    if known is None or not len(known):
        return states
    places = np.minimum(np.searchsorted(known["key"], keys), len(known) - 1)
    found = known["key"][places] == keys
    states[found] = known["state"][places[found]]
    return states


def _save(record: CachedArray, keys: np.ndarray, states: np.ndarray) -> None:
    kept = (states != State.UNREACHABLE) & (keys != 0)
    entries = np.empty(np.count_nonzero(kept), _ENTRY)
    entries["key"], entries["state"] = keys[kept], states[kept]
    entries.sort(order="key")
    record.save(entries)
