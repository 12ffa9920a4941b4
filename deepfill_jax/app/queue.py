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

    def __init__(self, before: int):
        """Takes the number of requests in the queue."""
        super().__init__(f"The queue is full: {requests_before(before)}; try again later.")


class CancelledError(Exception):
    """The client has disconnected or sent another request."""

    def __init__(self) -> None:
        super().__init__("The request was cancelled.")


def requests_before(number: int) -> str:
    """Returns "2 requests before this one"."""
    return f"{number} request{'' if number == 1 else 's'} before this one"


class Queue:
    """A bounded number of slots for requests, and a lock so that one is processed at a time."""

    def __init__(self, waiting: int):
        """Takes the maximum number of requests that wait while one is processed."""
        self._max_slots = waiting + 1
        self._slots = threading.BoundedSemaphore(self._max_slots)
        self._lock = asyncio.Lock()
        self._line: list[asyncio.Task | None] = []  # The tasks that called `exclusive`, in order.

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Takes a slot in the queue and holds it until the block ends.

        Raises:
            QueueFullError: All slots are taken.
        """
        if not self._slots.acquire(blocking=False):
            raise QueueFullError(self._max_slots)
        try:
            yield
        finally:
            self._slots.release()

    def before(self, task: asyncio.Task) -> int:
        """Returns the number of calls of `exclusive` that must end before that of a task begins."""
        return self._line.index(task) if task in self._line else 0

    async def exclusive(self, work: Callable[[threading.Event], Result]) -> Result:
        """Runs work in a thread once all earlier calls are done; the caller must hold a slot.

        Args:
            work: Receives an event that is set when this call is cancelled. The lock is held until
                `work` returns, so that two calls never run at the same time.
        """
        task = asyncio.current_task()
        self._line.append(task)
        try:
            async with self._lock:
                return await self._in_thread(work)
        finally:
            self._line.remove(task)

    async def _in_thread(self, work: Callable[[threading.Event], Result]) -> Result:
        stop = threading.Event()
        working = asyncio.ensure_future(asyncio.to_thread(work, stop))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([working])
            working.exception()  # Retrieving it avoids asyncio's warning about lost errors.
            raise
