"""One HTTP request and its response: the limits of uploads, and errors as JSON."""

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepfill_jax.app.quota import Quota, QuotaError
from deepfill_jax.app.responses import problem, reason_of

UPLOAD_SECONDS = 300  # Maximum duration of an upload.
START_SECONDS = 20  # Every upload may take this long, and
MIN_BYTES_PER_SECOND = 10_000  # must progress at this rate if it takes longer.
PIECE_BYTES = 65_536  # Bodies are sent in pieces, so that few bytes wait in the socket's buffer.
# The web UI is self-contained: browsers must not load other hosts' content or show it in a frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RefusalError(Exception):
    """Ends a request with a response that is sent instead of the application's."""

    def __init__(self, response: Response):
        """Takes the response."""
        super().__init__(response.status_code)
        self.response = response


def too_large(max_bytes: int) -> RefusalError:
    """Returns the refusal of a request that is too large."""
    return RefusalError(
        problem(f"The request is larger than the limit of {max_bytes:,} bytes; send less", 413)
    )


class Exchange:
    """A request and its response."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int, quota: Quota):
        """Takes the channels of a request, the maximum size of its body in bytes, and the quota.

        The received bytes count towards the quota until the request ends; stored uploads count
        longer.
        """
        self._receive, self._send = receive, send
        self._max_bytes, self._quota = max_bytes, quota
        self._began = asyncio.get_running_loop().time()
        self._received, self._is_whole = 0, False
        self._is_answered = False  # The response has begun.
        self._refusal: RefusalError | None = None
        self._failure: Message | None = None  # The start of an error response, until its body ends.
        self._failure_body = b""

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Runs the application.

        Raises:
            RefusalError: The request was too large or too slow, or exceeded the quota; the
                application's own response to the failed upload was dropped.
        """
        try:
            await app(scope, self._receive_limited, self._send_in_pieces)
        except Exception:
            if self._refusal is None:
                raise
        finally:
            self._quota.release(self._received, is_stored=scope["path"].endswith("/upload"))
        if self._refusal is not None:
            raise self._refusal

    async def _receive_limited(self) -> Message:
        # The only message after the body, or while the response is sent, is the disconnect.
        if self._is_whole or self._is_answered:
            return await self._receive()
        seconds = min(START_SECONDS + self._received / MIN_BYTES_PER_SECOND, UPLOAD_SECONDS)
        try:
            async with asyncio.timeout_at(self._began + seconds):
                message = await self._receive()
        except TimeoutError:
            slow = problem("The upload timed out; send the request again", 408)
            self._refusal = RefusalError(slow)
            raise self._refusal from None
        self._is_whole = not message.get("more_body", False)
        size = len(message.get("body", b""))
        try:
            self._quota.hold(size)
        except QuotaError as error:
            self._refusal = RefusalError(problem(str(error), 503, {"Retry-After": "60"}))
            raise self._refusal from None
        self._received += size
        if self._received > self._max_bytes:
            self._refusal = too_large(self._max_bytes)
            raise self._refusal
        return message

    async def _send_in_pieces(self, message: Message) -> None:
        if self._refusal is not None:
            return
        if message["type"] == "http.response.start":
            self._is_answered = True
            MutableHeaders(scope=message).update(HEADERS)
            if message["status"] >= 400:
                self._failure = message
                return
        if self._failure is not None:
            return await self._send_failure(message)
        rest = memoryview(message.get("body", b""))
        while len(rest) > PIECE_BYTES:
            piece, rest = bytes(rest[:PIECE_BYTES]), rest[PIECE_BYTES:]
            await self._send({"type": message["type"], "body": piece, "more_body": True})
        await self._send({**message, "body": bytes(rest)} if "body" in message else message)

    async def _send_failure(self, message: Message) -> None:
        """Sends an error response as JSON, whatever part of the application it comes from."""
        assert self._failure is not None
        self._failure_body += message.get("body", b"")
        if message.get("more_body", False):
            return
        start, self._failure = self._failure, None
        response = problem(reason_of(start["status"], self._failure_body), start["status"])
        MutableHeaders(scope=start).update(dict(response.headers))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": response.body})
