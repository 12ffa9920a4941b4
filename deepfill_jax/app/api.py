"""The routes of the HTTP API."""

import asyncio
import collections
import difflib
import enum
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, Response

from deepfill_jax import __version__, pictures
from deepfill_jax.app import described, fields, responses
from deepfill_jax.app.described import About, Health
from deepfill_jax.app.guard import HEALTH, HELP, INPAINT, MODELS, SCHEMA
from deepfill_jax.app.reading import plain_name, read, result_name
from deepfill_jax.app.service import Options, Service, Sides
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import UNGUIDED
from deepfill_jax.pictures import Encoded, MaskOptions

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

    responses.handle_errors(app)

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
        responses={200: described.completed_image(responses.MEDIA_TYPES.values())}
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
        image: fields.ImageFile,
        mask: fields.MaskFile = None,
        sketch: fields.SketchFile = None,
        model: Annotated[names, Form(description="Name of a model, see /api/models.")] = first,
        strategy: fields.ResizeStrategy = "auto",
        dilate: fields.Dilation = 0,
        feather: fields.Feather = 0,
        format: fields.ResultFormat = "png",
        mask_threshold: fields.MaskThreshold = 0.5,
        mask_orientation: fields.MaskOrientation = "auto",
        check_mask: fields.MaskCheck = True,
        top: fields.Top = 0,
        right: fields.Right = 0,
        bottom: fields.Bottom = 0,
        left: fields.Left = 0,
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
        return responses.completed_image(model.value, *done)

    # Without these routes, the web UI mounted behind them would answer 404 instead of 405.
    for path in (INPAINT, MODELS, SCHEMA, HEALTH, HELP):
        allowed = "POST" if path == INPAINT else "GET"
        app.add_route(path, responses.MethodNotAllowed(allowed), include_in_schema=False)
    return app


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
