"""HTTP connections: limits on their number, and on clients that send or read slowly."""

import asyncio
import itertools
from http import HTTPStatus
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from deepfill_jax.app.responses import problem

MAX_CONNECTIONS = 500  # Maximum number of simultaneous connections.
HEAD_SECONDS = 10  # Maximum duration from a connection, or a response, to the next request's head.
READ_SECONDS = 20  # Maximum duration in which a client reads nothing of its response.
MIN_BYTES_PER_SECOND = 10_000  # Minimum rate at which it reads, apart from one such pause.
HIGH_WATER, LOW_WATER = 65_536, 16_384  # Bytes in the buffer at which sending pauses and resumes.

_turns = itertools.count()  # Not times, which can be equal.


class Protocol(H11Protocol):
    """Uvicorn's protocol with limits on the times that it spends waiting for its client.

    uvicorn limits neither the time for the head of a request nor that for reading a response, and
    at its limit of connections it refuses every client. Here, the connection that has kept the
    server waiting longest makes room.
    """

    _is_idle = True  # No request is in progress.
    _head_timer: asyncio.TimerHandle | None = None  # Runs while the connection is idle.
    _read_timer: asyncio.TimerHandle | None = None  # Runs while the buffer is full.
    _turn: int  # Order in which connections became idle or began a request.
    _full_since: float  # When the buffer became full.
    _patience: float  # Seconds for which it may stay full.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the head; makes room if there are too many connections."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._patience = READ_SECONDS
        if len(self.connections) > MAX_CONNECTIONS and not self._make_room():
            return self._refuse(503, "Too many connections are open; try again later")
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers."""
        self._stop_timers()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Stops the time for the head when a request begins."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._is_idle, self._turn = False, next(_turns)
            _stop(self._head_timer)

    def on_response_complete(self) -> None:
        """Starts the time for the head of the next request."""
        self._await_head()
        super().on_response_complete()  # May handle a request that was sent with the last one.

    def pause_writing(self) -> None:
        """Starts the time for reading."""
        super().pause_writing()
        self._full_since = self.loop.time()
        self._read_timer = self.loop.call_later(self._patience, self._drop)

    def resume_writing(self) -> None:
        """Stops the time for reading, and extends it by that of the bytes that were read."""
        super().resume_writing()
        _stop(self._read_timer)
        earned = (HIGH_WATER - LOW_WATER) / MIN_BYTES_PER_SECOND
        waited = self.loop.time() - self._full_since
        self._patience = min(self._patience + earned - waited, READ_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Responds to a request that is not HTTP."""
        self._refuse(400, msg)

    def _await_head(self) -> None:
        self._is_idle, self._turn = True, next(_turns)
        _stop(self._head_timer)
        # The rest of the last response may still be in the buffer.
        seconds = READ_SECONDS if self.transport.get_write_buffer_size() else HEAD_SECONDS
        self._head_timer = self.loop.call_later(seconds, self._end_idle)

    def _end_idle(self) -> None:
        has_begun, _ = self.conn.trailing_data
        if has_begun and not self.transport.is_closing():
            self._refuse(408, "The request's head timed out; send the request again")
        else:
            self._drop()

    def _make_room(self) -> bool:
        """Drops the connection that has kept the server waiting longest; False if there is none."""
        connections = cast(set[Protocol], self.connections)
        waiting = [x for x in connections if x is not self and x._keeps_waiting()]
        if waiting:
            # Those that have sent a head are dropped after those that have sent none.
            min(waiting, key=lambda x: (not x._is_idle, x._turn))._drop()
        return bool(waiting)

    def _keeps_waiting(self) -> bool:
        """Whether the server waits for a request, its body, or the end of the connection."""
        return self._is_idle or self.transport.is_closing() or self.cycle.more_body

    def _drop(self) -> None:
        self._stop_timers()
        self.connections.discard(self)
        self.transport.abort()

    def _stop_timers(self) -> None:
        _stop(self._head_timer)
        _stop(self._read_timer)

    def _refuse(self, status: int, reason: str) -> None:
        """Sends a response without running the application, and closes the connection."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return self._drop()  # The response to this request has begun.
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        response = problem(reason, status, {"connection": "close"})
        phrase = HTTPStatus(status).phrase.encode()
        start = h11.Response(status_code=status, headers=response.raw_headers, reason=phrase)
        events = (start, h11.Data(data=bytes(response.body)), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
        self._await_head()  # A client that does not read the response is dropped.


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
