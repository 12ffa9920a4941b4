"""Distinguishes corrupt checkpoints from those that cannot be read now, alike in all processes.

A checkpoint is corrupt if it fails a checksum, cannot be decoded, or lacks a file that was saved.
Any other error may be transient: a stale file handle, a missing permission, lack of memory, a
timeout. On a network file system, each of these errors and even a missing file can be transient, so
reading is retried first.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from deepfill_jax.errors import RunError, UsageError

WAITS = (1.0, 4.0, 15.0)  # Seconds before the second and further attempts.
# TensorStore's messages about wrong content (a failed checksum, a truncated file) start with these.
CONTENT_FAULTS = ("DATA_LOSS", "OUT_OF_RANGE")
TEXT_BYTES = 400  # Maximum length of a message that processes exchange.

Result = TypeVar("Result")


class CorruptCheckpointError(Exception):
    """The content of a checkpoint is not what was saved."""


class UnreadableCheckpointError(Exception):
    """A checkpoint cannot be read now; nothing proves that its content is wrong."""


VERDICTS = (type(None), CorruptCheckpointError, UsageError, UnreadableCheckpointError)


def attempt(
    read: Callable[[], Result],
    verify: Callable[[], None],
    *,
    exists: Callable[[], bool] = lambda: True,
) -> Result:
    """Calls `read`, and retries after each of `WAITS` if it fails.

    Args:
        read: Reads a checkpoint.
        verify: Compares the checkpoint's files with the record; called after the last failure.
        exists: Returns whether the checkpoint still exists, so that a retry makes sense.

    Returns:
        The result of `read`.

    Raises:
        CorruptCheckpointError: The content is wrong.
        UnreadableCheckpointError: Reading failed for any other reason.
        UsageError: `read` raised it; this is not retried.
    """
    for wait in (*WAITS, None):
        try:
            return read()
        except UsageError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many classes of exceptions.
            failure = error
        if wait is None or not exists():
            break
        time.sleep(wait)
    if isinstance(failure, CorruptCheckpointError):
        raise failure
    if any(_is_about_content(error) for error in _chain(failure)):
        raise CorruptCheckpointError(first_line(failure)) from failure
    try:
        verify()
    except OSError as error:
        raise UnreadableCheckpointError(first_line(error)) from failure
    raise UnreadableCheckpointError(first_line(failure)) from failure


def agree(failure: Exception | None, what: str) -> Exception | None:
    """Exchanges the verdicts of all processes, so that they continue together or not at all.

    Every process must call it.

    Args:
        failure: The exception of this process, one of the classes in `VERDICTS`, or None.
        what: Name of the thing that was read, for messages.

    Returns:
        `failure`, which is a CorruptCheckpointError or None, if all processes agree.

    Raises:
        RunError: A process cannot read it now, or only some processes find it corrupt.
        UsageError: A process reported a UsageError.
    """
    verdicts = _exchange(failure)
    kinds = [kind for kind, _ in verdicts]
    worst = kinds.index(max(kinds))
    where = f" in process {worst} of {len(kinds)}" if len(kinds) > 1 else ""
    text = verdicts[worst][1]
    if kinds[worst] == VERDICTS.index(UnreadableCheckpointError):
        raise RunError(
            f"{what} cannot be read now{where}: {text}. Nothing was moved or changed; start again "
            "when the cause is gone."
        ) from failure
    if kinds[worst] == VERDICTS.index(UsageError):
        raise failure if isinstance(failure, UsageError) else UsageError(text)
    if len(set(kinds)) > 1:
        raise RunError(
            f"{what} is corrupt{where} ({text}), and other processes can read it. Nothing was "
            "moved or changed; check that all see the same folder, and the memory of that machine."
        ) from failure
    return failure


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its class name if there is no message."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text[:TEXT_BYTES]


def _exchange(failure: Exception | None) -> list[tuple[int, str]]:
    """Gathers each process's verdict, an index into `VERDICTS`, and its message."""
    own = VERDICTS.index(type(failure)), "" if failure is None else str(failure)
    if jax.process_count() == 1:
        return [own]
    message = np.zeros(1 + TEXT_BYTES, np.uint8)
    text = np.frombuffer(own[1].encode("utf-8", "backslashreplace")[:TEXT_BYTES], np.uint8)
    message[0], message[1 : 1 + len(text)] = own[0], text
    return [
        (int(row[0]), bytes(row[1:]).rstrip(b"\0").decode(errors="ignore"))
        for row in multihost_utils.process_allgather(message)
    ]


def _is_about_content(error: BaseException) -> bool:
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return True
    return not isinstance(error, OSError) and str(error).startswith(CONTENT_FAULTS)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__
