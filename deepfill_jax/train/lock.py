"""The lock of a run's folder, which a second training run in the same folder cannot take."""

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock
import jax

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.checkpoint import faults
from deepfill_jax.errors import UsageError

logger = logging.getLogger(__name__)

LOCK = "run.lock"
HOLDER = "run.json"  # Host and process id of the run that holds the lock.


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Holds the lock of a run's folder; the system releases it when the process ends in any way.

    The folder is created if it does not exist. On a file system without locks, a warning is logged.

    Raises:
        UsageError: Another process holds the lock, or the folder cannot be written.
    """
    held = filelock.FileLock(workdir / LOCK)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise UsageError(
            f"Another training run uses {workdir}: {_holder(workdir)}. Stop it or wait until it "
            "ends, or give another --workdir."
        ) from None
    except NotImplementedError:
        logger.warning("%s is on a file system without locks: start one run in it only.", workdir)
    except OSError as error:
        raise UsageError(f"{workdir} cannot be written: {error.strerror or error}.") from error
    try:
        with atomic_write(workdir / HOLDER) as unfinished:
            unfinished.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        yield
    finally:
        (workdir / HOLDER).unlink(missing_ok=True)
        held.release()


@contextlib.contextmanager
def hold_for_all(workdir: Path) -> Iterator[None]:
    """Holds the lock in process 0 of a run; its other processes learn of a refusal.

    Raises:
        UsageError: See `hold`.
    """
    with contextlib.ExitStack() as held:
        failure = None
        if jax.process_index() == 0:
            try:
                held.enter_context(hold(workdir))
            except UsageError as error:
                failure = error
        faults.agree(failure, f"The lock of {workdir}")
        yield


def _holder(workdir: Path) -> str:
    try:
        holder = json.loads((workdir / HOLDER).read_text())
        return f"process {holder['pid']} on the host {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # It has just taken or released the lock.
        return "a process that has just started or is ending"
