"""ASGI middleware: authentication, host and origin checks, allowed paths, request limits."""

import base64
import binascii
import secrets
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from deepfill_jax.app.exchange import Exchange, RefusalError, too_large
from deepfill_jax.app.hosts import matches
from deepfill_jax.app.queue import QueueFullError
from deepfill_jax.app.responses import busy, problem
from deepfill_jax.app.service import Service

MAX_BYTES = 100_000_000  # Maximum size of a request.
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


class Guard:
    """ASGI middleware that rejects requests before they reach the application."""

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        *,
        login: Login | None = None,
        hosts: Collection[str] = (),
        proxies: Collection[str] = (),
        root_path: str = "",
        max_bytes: int = MAX_BYTES,
    ):
        """Wraps an application.

        Args:
            app: The application.
            service: The service; requests are rejected while its queue or its quota is full.
            login: Credentials that every request must have; None requires none.
            hosts: Allowed Host headers; empty allows any. Restricting them prevents DNS rebinding.
            proxies: Names of proxies, see `hosts.matches`. They are allowed as Host header, and in
                the Origin header of requests with another Host header.
            root_path: Path below which a proxy publishes this server, such as "/deepfill"; it is
                removed from the paths of requests that have it.
            max_bytes: Maximum request size in bytes.
        """
        self.app, self.service, self.login = app, service, login
        self.hosts, self.proxies = hosts and {*hosts, *proxies}, proxies
        self.root_path, self.max_bytes = root_path, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # The server does not use WebSockets.
            return await send({"type": "websocket.close"})
        scope = self._without_root_path(scope)
        try:
            self._check(scope)
            exchange = Exchange(receive, send, self.max_bytes, self.service.quota)
            await exchange.run(self.app, scope)
        except RefusalError as refusal:
            await refusal.response(scope, receive, send)

    def _without_root_path(self, scope: Scope) -> Scope:
        path, root = scope["path"], self.root_path
        if not root or not f"{path}/".startswith(f"{root}/"):
            return scope
        raw = scope.get("raw_path", path.encode()).removeprefix(root.encode())
        return {**scope, "path": path.removeprefix(root) or "/", "raw_path": raw or b"/"}

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if path != HEALTH:  # Load balancers have no password, and may use the address as Host.
            self._check_host(headers)
            self._check_login(headers)
        if path != "/" and not path.startswith(PATHS):
            raise RefusalError(problem("Not found", 404))
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.max_bytes:
            raise too_large(self.max_bytes)
        if path == INPAINT and scope["method"] == "POST":
            self._check_queue()

    def _check_host(self, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _host_name(f"//{host}")
        if self.hosts and not matches(name, self.hosts):
            reason = f"The Host header {host[:100]!r} does not name this server"
            raise RefusalError(problem(reason + _remedy(name), 421))
        if origin is None or origin in (f"http://{host}", f"https://{host}"):
            return
        page = _host_name(origin)
        if not matches(page, self.proxies):
            reason = f"Requests from another origin, {origin[:100]!r}, are not allowed"
            raise RefusalError(problem(reason + _remedy(page), 403))

    def _check_login(self, headers: Headers) -> None:
        if self.login and not self.login.opens(headers.get("authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="deepfill", charset="UTF-8"'}
            raise RefusalError(problem("A user name and a password are required", 401, challenge))

    def _check_queue(self) -> None:
        """Refuses a request before its body is received if the queue is full."""
        try:
            with self.service.queue.slot():
                pass
        except QueueFullError as error:
            raise RefusalError(busy(error)) from error


def _host_name(url: str) -> str | None:
    """Returns the host name of a URL in lower case; None if there is none or it is malformed."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  Raises if it is malformed.
        return parts.hostname
    except ValueError:
        return None


def _remedy(name: str | None) -> str:
    """Returns the second sentence of a refusal: how to allow a name if that is possible."""
    return f". If {name} is a proxy, start the server with --allow-host {name}" if name else ""
