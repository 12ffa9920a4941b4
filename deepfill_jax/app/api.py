"""The routes of the HTTP API."""

import asyncio
import collections
import difflib
import enum
import functools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import Depends, FastAPI, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, Response
from starlette.routing import Route

from deepfill_jax import __version__
from deepfill_jax.app import described, fields, jobs, responses
from deepfill_jax.app.described import About, Health
from deepfill_jax.app.filling import Options, Sides
from deepfill_jax.app.guard import HEALTH, HELP, INPAINT, MODELS, SCHEMA
from deepfill_jax.app.reading import Format, plain_name
from deepfill_jax.app.service import Service
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import UNGUIDED
from deepfill_jax.inpaint.windows import BUDGET
from deepfill_jax.pictures import Encoded, MaskOptions

Result = TypeVar("Result")

_CLIENT_GONE = 499  # nginx's status code for a closed connection; the client does not read it.


def make_api(service: Service, *, login: bool = False, root_path: str = "") -> FastAPI:
    """Makes the application with the routes of the API.

    Args:
        service: The service.
        login: Whether the description says that a user name and a password are required.
        root_path: See `Guard`; the description names it as the server's address.
    """
    app = FastAPI(
        title="deepfill",
        version=__version__,
        description="Image inpainting with DeepFillv2.",
        docs_url=None,  # FastAPI's documentation pages load scripts from other hosts.
        redoc_url=None,
        servers=[{"url": root_path}] if root_path else None,
    )
    responses.handle_errors(app)
    protected = [Depends(described.Login())] if login else []
    reasons = {"_401": "A user name and a password are required."} if login else {}
    app.get(HEALTH, operation_id="health")(health)
    app.get(HELP, include_in_schema=False)(help)
    app.get(
        MODELS,
        operation_id="list_models",
        dependencies=protected,
        responses=described.errors(**reasons),
    )(_models_route(service))
    app.post(
        INPAINT,
        operation_id="inpaint",
        dependencies=[*protected, Depends(_only_known_fields)],
        response_class=Response,
        responses={
            200: described.completed_image(responses.MEDIA_TYPES.values()),
            **described.errors(
                _400="The request is not a valid form.",
                _408="The request was sent too slowly.",
                _413="The request is too large.",
                _422="A file or a parameter is invalid.",
                _500="The server failed, for example because memory ran out.",
                _503="The queue is full; try again later.",
                **reasons,
            ),
        },
    )(_inpaint_route(service))
    # Without these routes, the web UI mounted behind them would answer 404 instead of 405.
    for path in (INPAINT, MODELS, SCHEMA, HEALTH, HELP):
        other = responses.MethodNotAllowed("POST" if path == INPAINT else "GET")
        app.router.routes.append(Route(path, other, include_in_schema=False))
    return app


async def health() -> Health:
    """Reports that the server answers requests. No password is required."""
    return Health(status="ok")


async def help() -> HTMLResponse:
    """Returns the help page."""
    return HTMLResponse(Path(__file__).with_name("help.html").read_text(encoding="utf-8"))


def _models_route(service: Service) -> Callable[[], Awaitable[list[About]]]:
    async def models() -> list[About]:
        """Lists the available models; the first one is the default."""
        return [about(name, service) for name in service.models]

    return models


def _inpaint_route(service: Service) -> Callable[..., Awaitable[Response]]:
    names = {f"model{i}": name for i, name in enumerate(service.models)}
    Model = enum.StrEnum("Model", names)  # type: ignore[misc]  # Its members are not known before.
    first = next(iter(Model))

    async def inpaint(
        request: Request,
        mask_options: Annotated[MaskOptions, Depends(fields.mask_options)],
        sides: Annotated[Sides, Depends(fields.sides)],
        image: fields.ImageFile,
        # Types that include None would make files nullable in the description of the API.
        mask: fields.MaskFile = None,  # type: ignore[assignment]
        sketch: fields.SketchFile = None,  # type: ignore[assignment]
        model: Annotated[Model, Form(description="Name of a model, see /api/models.")] = first,
        strategy: fields.ResizeStrategy = "auto",
        budget: fields.Budget = BUDGET,
        detail: fields.Detail = True,
        seamless: fields.Seamless = True,
        dilate: fields.Dilation = 0,
        feather: fields.Feather = 0,
        format: fields.ResultFormat = "png",
    ) -> Response:
        """Inpaints an image. Known pixels stay unchanged, bit for bit in all formats but JPEG."""
        options = Options(
            *(model.value, strategy, dilate, feather, sides, mask_options),
            *(detail, seamless, budget),
        )
        if sketch is not None and not service.guided(options.model):
            raise UsageError(UNGUIDED)
        work = functools.partial(_complete, service, (image, mask, sketch), format, options)
        with service.queue.slot():  # Not before: a slow upload would keep others waiting.
            response = await _while_connected(request, service.queue.exclusive(work))
        return response or Response(status_code=_CLIENT_GONE)

    return inpaint


def _complete(
    service: Service,
    files: tuple[UploadFile, UploadFile | None, UploadFile | None],
    format: Format,
    options: Options,
    stop: threading.Event,
) -> Response:
    """Completes an image in the exclusive slot, so that the files of waiting requests stay on disk.

    Args:
        service: The service.
        files: The image, its mask and its sketch.
        format: Format of the result.
        options: The inpainting options.
        stop: See `Worker.run`.

    Returns:
        The response that contains the completed image.
    """
    image, *others = files
    mask, sketch = (None if file is None else _encoded(file) for file in others)
    completed = service.worker.run(
        stop, jobs.complete_files, _encoded(image), mask, sketch, options, format
    )
    return responses.completed_image(options.model, completed)


async def _only_known_fields(request: Request) -> None:
    """Refuses unknown fields, repeated fields and URL parameters, which would be ignored."""
    route = request.scope["route"].dependant
    known = [field.name for part in (route, *route.dependencies) for field in part.body_params]
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
        architecture=model.architecture,
        working_size=service.working_size(name),
        guided=service.guided(name),
        license=service.license(name),
    )


def _encoded(upload: UploadFile) -> Encoded:
    return Encoded(upload.file.read(), plain_name(upload.filename))


async def _while_connected(request: Request, work: Awaitable[Result]) -> Result | None:
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
