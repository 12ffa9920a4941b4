"""The queue: requests are processed one at a time, and a limited number may wait."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

MAX_WAITING = 8  # Default number of requests that may wait while one is processed.

Result = TypeVar("Result")


class QueueFullError(Exception):
    """The maximum number of requests are already waiting."""

    def __init__(self):
        super().__init__("Too many requests are waiting; try again later.")


class CancelledError(Exception):
    """The client has disconnected or sent another request."""

    def __init__(self):
        super().__init__("The request was cancelled.")


class Queue:
    """A bounded number of slots for requests, and a lock so that one is processed at a time."""

    def __init__(self, waiting: int):
        """Takes the maximum number of requests that wait while one is processed."""
        self._slots = threading.BoundedSemaphore(waiting + 1)
        self._lock = asyncio.Lock()

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Takes a slot in the queue and holds it until the block ends.

        Raises:
            QueueFullError: All slots are taken.
        """
        if not self._slots.acquire(blocking=False):
            raise QueueFullError
        try:
            yield
        finally:
            self._slots.release()

    async def exclusive(self, work: Callable[[threading.Event], Result]) -> Result:
        """Runs work in a thread once all earlier calls are done; the caller must hold a slot.

        Args:
            work: Receives an event that is set when this call is cancelled. The lock is held until
                `work` returns, so that two calls never run at the same time.
        """
        async with self._lock:
            stop = threading.Event()
            working = asyncio.ensure_future(asyncio.to_thread(work, stop))
            try:
                return await asyncio.shield(working)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait([working])
                working.exception()  # Retrieving it avoids asyncio's warning about lost errors.
                raise
