"""The HTTP API: routes, types and error responses."""

import asyncio
import enum
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from deepfill_jax import pictures
from deepfill_jax.app.guard import INPAINT
from deepfill_jax.app.reading import Format, plain_name, read, result_name
from deepfill_jax.app.service import Options, Service, Sides
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.windows import Strategy
from deepfill_jax.pictures import Encoded

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
}
MAX_PIXELS = 10_000  # Maximum of request parameters that are lengths, in pixels.
_CLIENT_GONE = 499  # nginx's status code for a closed connection; the client does not read it.


class Problem(BaseModel):
    """An error message of one sentence."""

    error: str


class About(BaseModel):
    """The description of a model."""

    name: str
    architecture: str
    working_size: int = Field(description="Side, in pixels, at which the model works best.")
    guided: bool = Field(description="Whether the model takes a sketch.")
    license: str | None = Field(description="License of the weights; null if it is not known.")


def make_api(service: Service) -> FastAPI:
    """Makes the application with the routes of the API."""
    app = FastAPI(
        title="deepfill",
        description="Image inpainting with DeepFillv2.",
        docs_url=None,  # FastAPI's documentation pages load scripts from other hosts.
        redoc_url=None,
    )
    names = enum.StrEnum("Model", {f"model{i}": name for i, name in enumerate(service.models)})
    first = next(iter(names))

    @app.exception_handler(UsageError)
    async def unusable(request: Request, error: UsageError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = error.errors()[0]
        field = ".".join(str(part) for part in wrong["loc"][1:])
        return JSONResponse({"error": f"{field or 'The request'}: {wrong['msg']}."}, 422)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)

    @app.get("/api/models")
    async def models() -> list[About]:
        """Lists the available models; the first one is the default."""
        return [about(name, service) for name in service.models]

    @app.post(
        INPAINT,
        response_class=Response,
        responses={
            200: {
                "description": "The completed image, of the original or the extended size.",
                "content": {name: {} for name in MEDIA_TYPES.values()},
            },
            400: {"model": Problem, "description": "The request is not a valid form."},
            413: {"model": Problem, "description": "The request is too large."},
            422: {"model": Problem, "description": "A file or a parameter is invalid."},
            503: {"model": Problem, "description": "The queue is full; try again later."},
        },
    )
    async def inpaint(
        request: Request,
        image: Annotated[
            UploadFile,
            File(description="JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC."),
        ],
        mask: Annotated[
            UploadFile | None,
            File(
                description="Mask of the image's size; white is the hole. Without a mask, the "
                "transparent pixels of the image are the hole."
            ),
        ] = None,
        sketch: Annotated[
            UploadFile | None,
            File(
                description="Sketch for guided models: white lines on black, of the image's size. "
                "Lines outside the hole are ignored."
            ),
        ] = None,
        model: Annotated[names, Form(description="Name of a model, see /api/models.")] = first,
        strategy: Annotated[Strategy, Form(description="How large images are processed.")] = "auto",
        dilate: Annotated[
            int, Form(ge=0, le=MAX_PIXELS, description="Pixels by which the hole is dilated.")
        ] = 0,
        feather: Annotated[
            int,
            Form(
                ge=0,
                le=MAX_PIXELS,
                description="Width in pixels, at most `dilate`, of the border of the dilated hole "
                "in which the result is blended with the image.",
            ),
        ] = 0,
        format: Annotated[
            Format, Form(description="Format of the result: PNG, or the image's format.")
        ] = "png",
        top: _side("top") = 0,
        right: _side("right") = 0,
        bottom: _side("bottom") = 0,
        left: _side("left") = 0,
    ) -> Response:
        """Inpaints an image. Known pixels stay unchanged, bit for bit in all formats but JPEG."""
        options = Options(model.value, strategy, dilate, feather, Sides(top, right, bottom, left))

        def work(stop):
            # Reading in the exclusive slot keeps waiting requests on disk and one image in memory.
            inputs = read(*map(_encoded, (image, mask, sketch)), max_pixels=service.max_pixels)
            filled = service.fill(*inputs, options, stop)
            result = result_name(plain_name(image.filename), format)
            return result, pictures.encode(result, filled.pixels, filled.before)

        done = await _while_connected(request, service.queue.exclusive(work))
        if done is None:
            return Response(status_code=_CLIENT_GONE)
        result, encoded = done
        media_type = MEDIA_TYPES[pictures.WRITABLE[PurePosixPath(result).suffix.lower()]]
        attached = f"attachment; filename*=utf-8''{quote(result)}"
        return Response(encoded, media_type=media_type, headers={"Content-Disposition": attached})

    # Without these routes, the web UI mounted behind them would answer 404 instead of 405.
    for path, allowed in ((INPAINT, "POST"), ("/api/models", "GET"), ("/openapi.json", "GET")):
        app.add_route(path, _NoOtherMethod(allowed), include_in_schema=False)
    return app


class _NoOtherMethod:
    def __init__(self, allowed: str):
        self._answer = JSONResponse({"error": "Method not allowed."}, 405, {"Allow": allowed})

    async def __call__(self, scope, receive, send):
        await self._answer(scope, receive, send)


def _side(name: str) -> type[int]:
    description = f"Pixels by which the image is extended at the {name}."
    return Annotated[int, Form(ge=0, le=MAX_PIXELS, description=description)]


def about(name: str, service: Service) -> About:
    """Returns the description of a model."""
    model = service.models[name]
    return About(
        name=name,
        architecture=model.variant.name,
        working_size=service.working_size(name),
        guided=service.guided(name),
        license=service.license(name),
    )


def _encoded(upload: UploadFile | None) -> Encoded | None:
    return upload and Encoded(upload.file.read(), plain_name(upload.filename))


async def _while_connected(request: Request, work):
    """Awaits work and returns its result; cancels it and returns None if the client disconnects."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.wait([working, gone])


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
