"""Tells a corrupt checkpoint from one that cannot be read now, alike in all processes.

Corrupt is what fails a checksum, cannot be decoded, or lacks a file that was saved. Any other error
may pass: a stale file handle, missing permission, memory that ran out, a time-out. A file system of
a network can show each of these, and a missing file, for a moment, so reading is tried again first.
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
# How tensorstore begins the message where content is wrong: a failed checksum, a file too short.
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
    """Reads, and tries again after each of `WAITS` if that fails.

    Args:
        read: Reads a checkpoint.
        verify: Compares its files with the record of what was saved; called after the last failure.
        exists: Whether another attempt makes sense.

    Raises:
        CorruptCheckpointError: The content is wrong.
        UnreadableCheckpointError: Any other failure, unless it is a UsageError.
    """
    for wait in (*WAITS, None):
        try:
            return read()
        except UsageError:
            raise
        except Exception as error:  # Orbax and tensorstore raise many kinds.
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
    """Exchanges verdicts between the processes; each of them calls it, and none continues alone.

    Args:
        failure: What reading led to in this process, one of `VERDICTS`.
        what: What was read, for messages.

    Returns:
        `failure`, a CorruptCheckpointError or None, if all processes have the same.

    Raises:
        RunError: A process cannot read it now, or some find it corrupt and others do not.
        UsageError: A process raised one.
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
    """The kind of an error if it has no text, else the first line of that."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text[:TEXT_BYTES]


def _exchange(failure: Exception | None) -> list[tuple[int, str]]:
    """The verdict of each process, as an index of `VERDICTS`, and its text."""
    own = VERDICTS.index(type(failure)), "" if failure is None else str(failure)
    if jax.process_count() == 1:
        return [own]
    message = np.zeros(1 + TEXT_BYTES, np.uint8)
    text = np.frombuffer(own[1].encode()[:TEXT_BYTES], np.uint8)
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
    """An error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__
