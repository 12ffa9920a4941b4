"""The HTTP responses of the API: completed images, and errors as {"error": SENTENCE}."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from deepfill_jax import pictures
from deepfill_jax.app import described
from deepfill_jax.app.service import Filled
from deepfill_jax.errors import UsageError

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
}


def problem(reason: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Makes an error response; the reason may or may not end with a period."""
    return JSONResponse({"error": f"{reason.rstrip('.')}."}, status, headers)


def handle_errors(app: FastAPI) -> None:
    """Converts the errors of an application's routes to responses."""

    @app.exception_handler(UsageError)
    async def unusable(request: Request, error: UsageError) -> Response:
        return JSONResponse({"error": str(error)}, 422)  # It is a whole sentence.

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = error.errors()[0]
        field = ".".join(str(part) for part in wrong["loc"][1:])
        return problem(f"{field or 'The request'}: {wrong['msg']}", 422)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return problem(error.detail, error.status_code, error.headers)


class MethodNotAllowed:
    """A route that answers all methods with 405."""

    def __init__(self, allowed: str):
        """Takes the allowed method, which the response names."""
        self._response = problem("Method not allowed", 405, {"Allow": allowed})

    async def __call__(self, scope, receive, send) -> None:
        """Sends the response."""
        await self._response(scope, receive, send)


def completed_image(
    model: str, filled: Filled, name: str, encoded: bytes, warnings: tuple[str, ...]
) -> Response:
    """Makes the response that contains the completed image.

    Args:
        model: Name of the model.
        filled: The completed image.
        name: Name of its file.
        encoded: Content of the file.
        warnings: Sentences for the header Deepfill-Warning.
    """
    values = (quote(model), filled.strategy, f"{filled.scale:.4g}", f"{filled.seconds:.3f}")
    headers = dict(zip(described.HEADERS, values, strict=True))
    headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(name)}"
    if warnings:
        headers["Deepfill-Warning"] = quote(" ".join(warnings), safe=" ,;:()'")
    media_type = MEDIA_TYPES[pictures.WRITABLE[PurePosixPath(name).suffix.lower()]]
    return Response(encoded, media_type=media_type, headers=headers)
