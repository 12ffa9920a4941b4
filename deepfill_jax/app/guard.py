"""ASGI middleware: authentication, host and origin checks, allowed paths, request size limits."""

import asyncio
import base64
import binascii
import contextlib
import secrets
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepfill_jax.app.queue import QueueFullError
from deepfill_jax.app.service import Service

MAX_BYTES = 100_000_000  # Maximum size of a request.
UPLOAD_SECONDS = 300  # Maximum duration of an upload.
INPAINT, MODELS, SCHEMA = "/api/inpaint", "/api/models", "/openapi.json"
HEALTH, HELP = "/health", "/help"
# The paths of gradio that the web UI needs. Others could call functions by name, fetch URLs, ...
PATHS = (
    *(INPAINT, MODELS, SCHEMA, HEALTH, HELP),
    *("/assets/", "/static/", "/svelte/", "/theme.css", "/config", "/favicon.ico"),
    *("/manifest.json", "/robots.txt", "/pwa_icon", "/gradio_api/theme.css"),
    *("/gradio_api/file=/", "/gradio_api/upload", "/gradio_api/queue/", "/gradio_api/cancel"),
    *("/gradio_api/heartbeat/", "/gradio_api/startup-events"),
    *("/gradio_api/info", "/gradio_api/app_id", "/gradio_api/reset"),
)
# The web UI is self-contained: browsers must not load other hosts' content or show it in a frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Login(NamedTuple):
    """The credentials of HTTP Basic authentication."""

    user: str
    password: str

    def opens(self, authorization: str) -> bool:
        """Whether an Authorization header has these credentials, compared in constant time."""
        kind, _, encoded = authorization.partition(" ")
        try:
            credentials = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            credentials = b""
        same = secrets.compare_digest(credentials, f"{self.user}:{self.password}".encode())
        return same and kind.lower() == "basic"


class _RefusalError(Exception):
    def __init__(self, status: int, reason: str, **headers: str):
        super().__init__(reason)
        self.response = JSONResponse({"error": reason}, status, headers)


class Guard:
    """ASGI middleware that rejects requests before they reach the application."""

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        *,
        login: Login | None = None,
        hosts: Collection[str] = (),
        max_bytes: int = MAX_BYTES,
    ):
        """Wraps an application.

        Args:
            app: The application.
            service: The service whose queue gives inpainting requests a slot before they are read.
            login: Credentials that every request must have; None requires none.
            hosts: Allowed Host headers; empty allows any. Restricting them on a loopback server
                prevents DNS rebinding.
            max_bytes: Maximum request size in bytes.
        """
        self.app, self.service, self.login = app, service, login
        self.hosts, self.max_bytes = hosts, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # The server does not use WebSockets.
            return await send({"type": "websocket.close"})
        try:
            self._check(scope)
            fills = scope["path"] == INPAINT and scope["method"] == "POST"
            with self.service.queue.slot() if fills else contextlib.nullcontext():
                await _Exchange(receive, send, self.max_bytes).of(self.app, scope)
        except _RefusalError as refusal:
            await refusal.response(scope, receive, send)
        except QueueFullError as error:
            refusal = _RefusalError(503, str(error), **{"Retry-After": "10"})
            await refusal.response(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if self.hosts and urlsplit(f"//{host}").hostname not in self.hosts:
            raise _RefusalError(421, "The Host header does not name this server.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise _RefusalError(403, "Requests from other origins are not allowed.")
        is_open = path == HEALTH  # Load balancers, which have no password, ask for it.
        if self.login and not is_open and not self.login.opens(headers.get("authorization", "")):
            raise _RefusalError(
                401,
                "A user name and a password are required.",
                **{"WWW-Authenticate": 'Basic realm="deepfill", charset="UTF-8"'},
            )
        if path != "/" and not path.startswith(PATHS):
            raise _RefusalError(404, "Not found.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.max_bytes:
            raise _too_large(self.max_bytes)


def _too_large(max_bytes: int) -> _RefusalError:
    return _RefusalError(
        413, f"The request is larger than the limit of {max_bytes:,} bytes; send less."
    )


class _Exchange:
    """One request and its response, with limits on the size and duration of the upload."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int):
        self._receive, self._send, self._max_bytes = receive, send, max_bytes
        self._bytes, self._whole = 0, False
        self._deadline = asyncio.get_running_loop().time() + UPLOAD_SECONDS
        self._refusal: _RefusalError | None = None

    async def of(self, app: ASGIApp, scope: Scope) -> None:
        """Runs the application, or raises the refusal if the request was too large or too slow."""
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            if self._refusal is None:
                raise
        if self._refusal is not None:
            raise self._refusal

    async def receive(self) -> Message:
        if self._whole:  # The only message after the body is the client's disconnect.
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self._refusal = _RefusalError(408, "The upload timed out; send the request again.")
            raise self._refusal from None
        self._whole = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._max_bytes:
            self._refusal = _too_large(self._max_bytes)
            raise self._refusal
        return message

    async def send(self, message: Message) -> None:
        if self._refusal is not None:  # Drops the application's own response to the failed upload.
            return
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await self._send(message)
