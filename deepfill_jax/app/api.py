"""The HTTP API: routes, types and error responses."""

import asyncio
import collections
import difflib
import enum
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from deepfill_jax import __version__, pictures
from deepfill_jax.app import described
from deepfill_jax.app.described import About, FormFile, Health
from deepfill_jax.app.guard import HEALTH, HELP, INPAINT, MODELS, SCHEMA
from deepfill_jax.app.reading import Format, plain_name, read, result_name
from deepfill_jax.app.service import Filled, Options, Service, Sides
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import UNGUIDED
from deepfill_jax.inpaint.windows import Strategy
from deepfill_jax.pictures import Encoded, MaskOptions, Orientation

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
}
MAX_PIXELS = 10_000  # Maximum of the length parameters of requests, in pixels.
_CLIENT_GONE = 499  # nginx's status code for a closed connection; the client does not read it.


def make_api(service: Service, *, login: bool = False) -> FastAPI:
    """Makes the application with the routes of the API.

    Args:
        service: The service.
        login: Whether the description says that a user name and a password are required.
    """
    app = FastAPI(
        title="deepfill",
        version=__version__,
        description="Image inpainting with DeepFillv2.",
        docs_url=None,  # FastAPI's documentation pages load scripts from other hosts.
        redoc_url=None,
    )
    names = enum.StrEnum("Model", {f"model{i}": name for i, name in enumerate(service.models)})
    first = next(iter(names))
    protected = [Depends(described.Login())] if login else []
    reasons = {"_401": "A user name and a password are required."} if login else {}

    @app.exception_handler(UsageError)
    async def unusable(request: Request, error: UsageError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = error.errors()[0]
        field = ".".join(str(part) for part in wrong["loc"][1:])
        return JSONResponse(
            {"error": f"{field or 'The request'}: {wrong['msg'].rstrip('.')}."}, 422
        )

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return JSONResponse(
            {"error": f"{error.detail.rstrip('.')}."}, error.status_code, error.headers
        )

    @app.get(HEALTH, operation_id="health")
    async def health() -> Health:
        """Reports that the server answers requests. No password is required."""
        return Health(status="ok")

    @app.get(HELP, include_in_schema=False)
    async def help() -> HTMLResponse:
        return HTMLResponse(Path(__file__).with_name("help.html").read_text(encoding="utf-8"))

    @app.get(
        MODELS,
        operation_id="list_models",
        dependencies=protected,
        responses=described.errors(**reasons),
    )
    async def models() -> list[About]:
        """Lists the available models; the first one is the default."""
        return [about(name, service) for name in service.models]

    @app.post(
        INPAINT,
        operation_id="inpaint",
        dependencies=[*protected, Depends(_only_known_fields)],
        response_class=Response,
        responses={200: described.completed_image(MEDIA_TYPES.values())}
        | described.errors(
            _400="The request is not a valid form.",
            _413="The request is too large.",
            _422="A file or a parameter is invalid.",
            _503="The queue is full; try again later.",
            **reasons,
        ),
    )
    async def inpaint(
        request: Request,
        image: Annotated[
            FormFile,
            File(description="JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC."),
        ],
        mask: Annotated[
            FormFile,
            File(
                description="Mask of the image's size; white is the hole. Without a mask, the "
                "transparent pixels of the image are the hole."
            ),
        ] = None,
        sketch: Annotated[
            FormFile,
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
        mask_threshold: Annotated[
            float,
            Form(
                ge=0,
                lt=1,
                description="Fraction of white above which the mask is the hole; 0 for masks of "
                "class or instance numbers.",
            ),
        ] = 0.5,
        mask_orientation: Annotated[
            Orientation,
            Form(
                description="Orientation of the mask if the image has an EXIF orientation: that of "
                "the upright image or of its stored pixels; auto decides by the sizes."
            ),
        ] = "auto",
        check_mask: Annotated[
            bool,
            Form(
                description="Refuse masks without a hole, masks whose hole is the whole image, and "
                "masks of class numbers."
            ),
        ] = True,
        top: _side("top") = 0,
        right: _side("right") = 0,
        bottom: _side("bottom") = 0,
        left: _side("left") = 0,
    ) -> Response:
        """Inpaints an image. Known pixels stay unchanged, bit for bit in all formats but JPEG."""
        mask_options = MaskOptions(
            threshold=mask_threshold,
            check=check_mask,
            orientation=mask_orientation,
            say_unchecked="check_mask=false",
        )
        sides = Sides(top, right, bottom, left)
        options = Options(model.value, strategy, dilate, feather, sides, mask_options)
        if sketch is not None and not service.guided(options.model):
            raise UsageError(UNGUIDED)

        def work(stop):
            # Reading in the exclusive slot keeps waiting requests on disk and one image in memory.
            encoded = map(_encoded, (image, mask, sketch))
            inputs = read(*encoded, mask_options, max_pixels=service.max_pixels)
            picture = inputs.picture
            result = result_name(plain_name(image.filename), format, picture.format)
            pictures.check_writable(result, picture)
            filled = service.fill(picture, inputs.hole, inputs.sketch, options, stop)
            encoded = pictures.encode(result, filled.pixels, filled.before)
            return filled, result, encoded, inputs.warnings

        done = await _while_connected(request, service.queue.exclusive(work))
        if done is None:
            return Response(status_code=_CLIENT_GONE)
        return _response(model.value, *done)

    # Without these routes, the web UI mounted behind them would answer 404 instead of 405.
    for path in (INPAINT, MODELS, SCHEMA, HEALTH, HELP):
        allowed = "POST" if path == INPAINT else "GET"
        app.add_route(path, _NoOtherMethod(allowed), include_in_schema=False)
    return app


def _refusal(reason: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Makes an error response; the reason may or may not end with a period."""
    return JSONResponse({"error": f"{reason.rstrip('.')}."}, status, headers)


class _NoOtherMethod:
    def __init__(self, allowed: str):
        self._answer = JSONResponse({"error": "Method not allowed."}, 405, {"Allow": allowed})

    async def __call__(self, scope, receive, send):
        await self._answer(scope, receive, send)


async def _only_known_fields(request: Request) -> None:
    """Refuses unknown fields, repeated fields and URL parameters, which would be ignored."""
    known = [field.name for field in request.scope["route"].dependant.body_params]
    for name in request.query_params:
        raise UsageError(f"{name}: parameters of the URL are ignored; send form fields.")
    counts = collections.Counter(name for name, _ in (await request.form()).multi_items())
    for name, count in counts.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
            raise UsageError(f"{name}: there is no such field; {hint}")
        if count > 1:
            raise UsageError(f"{name}: the field was sent {count} times; send it once.")


def _response(
    model: str, filled: Filled, name: str, encoded: bytes, warnings: tuple[str, ...]
) -> Response:
    """Makes the response that contains the completed image under this file name."""
    values = (quote(model), filled.strategy, f"{filled.scale:.4g}", f"{filled.seconds:.3f}")
    headers = dict(zip(described.HEADERS, values, strict=True))
    headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(name)}"
    if warnings:
        headers["Deepfill-Warning"] = quote(" ".join(warnings), safe=" ,;:()'")
    media_type = MEDIA_TYPES[pictures.WRITABLE[PurePosixPath(name).suffix.lower()]]
    return Response(encoded, media_type=media_type, headers=headers)


def _side(name: str) -> type[int]:
    description = f"Pixels by which the image is extended at the {name}."
    return Annotated[int, Form(ge=0, le=MAX_PIXELS, description=description)]


def about(name: str, service: Service) -> About:
    """Returns the description of a model."""
    model = service.models[name]
    return About(
        name=name,
        purpose=service.purpose(name),
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
