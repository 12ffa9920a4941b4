"""The HTTP responses of the API: completed images, and errors as {"error": SENTENCE}."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from http.client import responses as phrases
from pathlib import PurePosixPath
from typing import IO
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from deepfill_jax import pictures
from deepfill_jax.app import described
from deepfill_jax.app.jobs import CompletedFile
from deepfill_jax.app.queue import CancelledError, QueueFullError
from deepfill_jax.errors import RunError, UsageError

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
}
MEMORY_BYTES = 1_000_000  # Larger images wait on disk for clients that read slowly.


def problem(reason: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Makes an error response; the reason may or may not end with a period."""
    return JSONResponse({"error": f"{reason.rstrip('.')}."}, status, headers)


def busy(error: Exception) -> JSONResponse:
    """Makes the response to a request that the server is too busy to accept."""
    return problem(str(error), 503, {"Retry-After": "10"})


def reason_of(status: int, body: bytes) -> str:
    """Returns the reason in the body of an error response of any kind, or that of its status."""
    reason: object = body.decode(errors="replace")
    try:
        parsed = json.loads(body)
        reason = parsed.get("error", parsed.get("detail")) if isinstance(parsed, dict) else None
    except ValueError:
        pass  # Plain text.
    # FastAPI's details can be lists, and statuses such as nginx's 499 have no phrase.
    return reason if reason and isinstance(reason, str) else phrases.get(status, "Failed")


def handle_errors(app: FastAPI) -> None:
    """Converts the errors of an application's routes to responses."""

    @app.exception_handler(UsageError)
    async def unusable(request: Request, error: UsageError) -> Response:
        return JSONResponse({"error": str(error)}, 422)  # It ends with a period.

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = error.errors()[0]
        field = ".".join(str(part) for part in wrong["loc"][1:])
        return problem(f"{field or 'The request'}: {wrong['msg']}", 422)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return problem(error.detail, error.status_code, error.headers)

    @app.exception_handler(QueueFullError)
    async def full(request: Request, error: QueueFullError) -> Response:
        return busy(error)

    @app.exception_handler(RunError)
    async def not_completed(request: Request, error: RunError) -> Response:
        return problem(str(error), 500)

    @app.exception_handler(CancelledError)
    async def stopping(request: Request, error: CancelledError) -> Response:
        return problem("The server is stopping; send the request again later", 503)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return problem("The server failed; its terminal shows the error", 500)


class MethodNotAllowed:
    """A route that answers all methods with 405."""

    def __init__(self, allowed: str):
        """Takes the allowed method, which the response names."""
        self._response = problem("Method not allowed", 405, {"Allow": allowed})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response."""
        await self._response(scope, receive, send)


def completed_image(model: str, completed: CompletedFile) -> Response:
    """Makes the response that contains the image completed by a model of this name."""
    name, content, summary, warnings = completed
    file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # Is deleted when it is closed.
    file.write(content)
    _, strategy, scale, megapixels, seconds = summary
    values = quote(model), strategy, f"{scale:.4g}", f"{megapixels:.3f}", f"{seconds:.3f}"
    headers = dict(zip(described.HEADERS, values, strict=True))
    headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(name)}"
    headers["Content-Length"] = str(len(content))
    if warnings:
        headers["Deepfill-Warning"] = quote(" ".join(warnings), safe=" ,;:()'")
    media_type = MEDIA_TYPES[pictures.WRITABLE[PurePosixPath(name).suffix.lower()]]
    return StreamingResponse(_pieces(file), media_type=media_type, headers=headers)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while piece := file.read(MEMORY_BYTES):
            yield piece
