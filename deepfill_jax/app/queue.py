"""The queue: requests are filled one after the other, and a few may wait."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

WAITING = 8  # Pictures that may wait while one is filled.

Made = TypeVar("Made")


class QueueFullError(Exception):
    """So many wait already that one more would wait too long."""

    def __init__(self):
        super().__init__("Too many pictures are waiting; try again in a while.")


class CancelledError(Exception):
    """Who asked has gone away, or asked for something else."""

    def __init__(self):
        super().__init__("The fill was stopped.")


class Queue:
    """Places for those that wait, and one turn at a time."""

    def __init__(self, waiting: int):
        """Takes how many may wait while one is filled."""
        self._places = threading.BoundedSemaphore(waiting + 1)
        self._turn = asyncio.Lock()

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Takes a place in the queue, to be held until a result is there.

        Raises:
            QueueFullError: All are taken.
        """
        if not self._places.acquire(blocking=False):
            raise QueueFullError
        try:
            yield
        finally:
            self._places.release()

    async def exclusive(self, work: Callable[[threading.Event], Made]) -> Made:
        """Does work in a thread, when all that asked before is done; for who has a place.

        Args:
            work: Takes an event that is set when nobody waits any more: as this is cancelled. The
                turn ends as `work` does, so that two never run beside each other.
        """
        async with self._turn:
            stop = threading.Event()
            working = asyncio.ensure_future(asyncio.to_thread(work, stop))
            try:
                return await asyncio.shield(working)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait([working])
                working.exception()  # Looked at, so that nobody warns of it.
                raise
