"""Requests to stop a run: SIGTERM, which clusters send before they kill a process, and Ctrl-C.

Python runs a signal handler only between two instructions of the main thread, and that thread may
spend minutes in a compilation. A second thread therefore sees the signals too, and can end the
process.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from deepfill_jax.errors import EXIT_CODES, PreemptedError, report
from deepfill_jax.train import stop_together

POLL_SECONDS = 0.1
# In a validation, the main thread checks for a stop after each batch; if it takes longer than this,
# it is compiling.
VALIDATION_SECONDS = 5.0


class StopSignal:
    """Context that records requests to stop the run.

    In a single process, Ctrl-C (SIGINT) counts too. At the end of the context, the previous signal
    handlers are restored. Several processes agree on the stop through JAX, which handles SIGTERM
    itself; see `stop_together` for a stop before the first step.
    """

    def __init__(self) -> None:
        self._requested = False
        self._checks = 0
        self._handlers: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._turn = threading.Lock()  # Held while the process is being ended.
        self._leave: tuple[float, Callable[[], str]] | None = None

    def __enter__(self) -> "StopSignal":
        if jax.distributed.is_initialized():
            return self
        read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        threading.Thread(target=self._watch, args=[read_end], daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._receive)
        # From now on, the interpreter writes the number of each signal to the pipe when it arrives.
        self._previous_end = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        return self

    def __exit__(self, *error: object) -> None:
        if self._handlers:
            signal.set_wakeup_fd(self._previous_end)
            os.close(self._write_end)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # Restore the handler, so that a second signal stops the process immediately.
        signal.signal(number, self._handlers[number])
        if number == signal.SIGINT and self._leave and not self._leave[0]:
            raise KeyboardInterrupt  # There is nothing to save, and no reason to wait.
        self._requested = True

    def requested(self) -> bool:
        """Tells whether to stop now; the answer is the same in all processes.

        Every process must call it equally often. Once it is True, it stays so.
        """
        if jax.distributed.is_initialized() and not self._requested:
            self._checks += 1
            self._requested = multihost_utils.reached_preemption_sync_point(self._checks)
        return self._requested

    @contextlib.contextmanager
    def leaving(self, seconds: float, save: Callable[[], str]) -> Iterator[None]:
        """Ends the process if SIGTERM arrives and the body does not end within some seconds.

        Args:
            seconds: Time from the signal on; 0 if nothing would be lost: then Ctrl-C raises
                KeyboardInterrupt.
            save: Called before the process ends, by another thread; saves what would be lost, and
                returns the message to print.
        """
        self._leave = seconds, save
        try:
            yield
        finally:
            with self._turn:  # If the process is being ended, this waits forever.
                self._leave = None

    def before_first_step(self, message: str) -> contextlib.AbstractContextManager[None]:
        """Ends the process, or all processes of the run, if SIGTERM arrives before the body ends.

        Args:
            message: The message to print.
        """
        if jax.distributed.is_initialized():
            return stop_together.leaving(lambda: _exit(lambda: message))
        return self.leaving(0.0, lambda: message)

    def _watch(self, read_end: int) -> None:
        """Waits for SIGTERM, and from then on for a reason to end the process."""
        with os.fdopen(read_end, "rb", buffering=0) as signals:
            while (number := signals.read(1)) not in (b"", bytes([signal.SIGTERM])):
                pass
            if not number:  # The context has ended.
                return
            arrived = time.monotonic()
            os.set_blocking(read_end, False)
            while signals.read(1) != b"":  # None as long as the context lasts.
                with self._turn:
                    if self._leave and time.monotonic() - arrived >= self._leave[0]:
                        _exit(self._leave[1])
                time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def exit_at_sigterm() -> Iterator[None]:
    """Ends the process with the exit code of a preempted run if SIGTERM arrives."""
    previous = signal.signal(signal.SIGTERM, lambda *_: _exit(lambda: "Stopped on request."))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit(save: Callable[[], str]) -> None:
    """Saves, prints the message and ends the process without returning to its other threads."""
    try:
        code = report(PreemptedError(save()))
    except BaseException as error:
        code = report(error) if isinstance(error, Exception) else EXIT_CODES[PreemptedError]
    sys.stdout.flush()
    os._exit(code)
