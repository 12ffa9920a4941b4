"""What the web UI says while a request waits, compiles or is filled."""

import asyncio
import time
from collections.abc import AsyncIterator

from deepfill_jax.app.queue import CancelledError, requests_before
from deepfill_jax.app.service import Service
from deepfill_jax.inpaint.network import compiling


async def waiting(work: asyncio.Task, service: Service) -> AsyncIterator[str]:
    """Says each second what happens until work is done; cancels it if nobody listens any more.

    Raises:
        CancelledError: The work was cancelled.
    """
    began = time.monotonic()
    try:
        while not (await asyncio.wait([work], timeout=min(time.monotonic() - began + 0.2, 1)))[0]:
            yield f"{_activity(work, service)} ... {time.monotonic() - began:.0f} s"
    finally:
        work.cancel()  # Has an effect only if gradio stopped listening before the work was done.
    if work.cancelled():
        raise CancelledError


def _activity(work: asyncio.Task, service: Service) -> str:
    if work.cancelling():
        return "Cancelling"
    if before := service.queue.before(work):
        return f"Waiting: {requests_before(before)}"
    if service.worker.is_starting():  # It is replaced when a request before this one is cancelled.
        return "Starting the process that fills images"
    if size := service.worker.compiling():
        return compiling(*size)
    return "Filling"
