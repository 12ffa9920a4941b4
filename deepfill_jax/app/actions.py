"""Event handlers of the web UI."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import gradio as gr

from deepfill_jax.app import jobs, layout
from deepfill_jax.app.filling import Options, Sides, Summary
from deepfill_jax.app.queue import CancelledError, requests_before
from deepfill_jax.app.reading import plain_name
from deepfill_jax.app.restricted import EditorFiles
from deepfill_jax.app.service import Service
from deepfill_jax.app.session_files import Result, Source, write_preview
from deepfill_jax.app.sessions import Session, Sessions
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.network import compiling
from deepfill_jax.inpaint.windows import Strategy
from deepfill_jax.pictures import WRITABLE, Picture


class Actions:
    """The event handlers: each public method returns updates by component of the layout.

    The methods raise errors with a message for the user: `UsageError`, `RunError`,
    `QueueFullError` or `CancelledError`.
    """

    def __init__(self, service: Service, sessions: Sessions, parts: layout.Layout):
        """Takes the service, the sessions to act on, and the components to update."""
        self._service, self._sessions, self._parts = service, sessions, parts
        self._looking = asyncio.Lock()

    async def enter(self, request: gr.Request) -> None:
        """Starts a session."""
        self._session(request)

    async def leave(self, request: gr.Request) -> None:
        """Ends a session."""
        self._sessions.end(str(request.session_hash))

    async def open_picture(self, request: gr.Request, path: str) -> dict:
        """Opens an uploaded image."""
        session = self._session(request)
        with session.taking(path) as image:
            changes = await self._open(session, Source(image, plain_name(path)))
        return {self._parts.upload: None, **changes}

    async def open_example(self, request: gr.Request, index: int) -> dict:
        """Opens an example image."""
        self._service.quota.check()
        session, example = self._session(request), layout.examples()[index]
        image = Path(shutil.copy(example, session.new()))
        return await self._open(session, Source(image, example.name))

    async def again(self, request: gr.Request) -> dict:
        """Opens the current result as the next input image."""
        session = self._session(request)
        if session.result is None:
            raise UsageError("There is no result yet; fill the hole first.")
        with session.taking(session.result.png) as image:
            source = replace(session.chosen(), image=image, mask=None)
            changes = await self._open(session, source)
        return changes | dict.fromkeys(self._parts.sides, 0)

    async def open_mask(self, request: gr.Request, path: str) -> dict:
        """Opens an uploaded mask."""
        session = self._session(request)
        with session.taking(path) as mask:
            source = replace(session.chosen(), mask=mask, mask_name=plain_name(path))
            await self._look(session, source)
        return {self._parts.unmask: gr.update(visible=True)}

    async def remove_mask(self, request: gr.Request) -> dict:
        """Removes the uploaded mask."""
        session = self._session(request)
        await self._look(session, replace(session.chosen(), mask=None))
        return {self._parts.unmask: gr.update(visible=False)}

    async def show(self, request: gr.Request) -> dict:
        """Shows the input image and its uploaded mask in the editor."""
        shown = self._session(request).shown
        if shown is None:  # The user started over meanwhile.
            return {self._parts.editor: None}
        return {self._parts.editor: {"background": str(shown), "layers": [], "composite": None}}

    async def take_model(self, name: str) -> dict:
        """Shows the description and the brushes of a model."""
        return {
            self._parts.title: layout.title(self._service, name),
            self._parts.about: layout.about(self._service, name),
            self._parts.editor: gr.update(brush=layout.brush(self._service, name)),
        }

    async def fill(
        self,
        request: gr.Request,
        files: EditorFiles,
        model: str,
        strategy: Strategy,
        detail: bool,
        seamless: bool,
        dilate: float,
        feather: float,
        *sides: float,
    ) -> AsyncIterator[dict]:
        """Fills the hole, and says each second what happens."""
        session, service = self._session(request), self._service
        for unused in files.unused:
            session.discard(unused)
        service.quota.check()
        session.chosen()
        extension = Sides(*(int(side or 0) for side in sides))
        edges = int(dilate), int(feather)
        options = Options(model, strategy, *edges, extension, detail=detail, seamless=seamless)

        def work(stop: threading.Event) -> tuple[Result, Summary, bool]:
            arguments = session.chosen(), layer, options
            with session.new_folder() as folder:
                return service.worker.run(stop, jobs.complete_session, *arguments, folder)

        with service.queue.slot(), session.borrowing(files.layer) as layer:
            session.stop()
            session.work = asyncio.ensure_future(service.queue.exclusive(work))
            async for status in _waiting(session.work, service):
                yield {self._parts.status: status, self._parts.cancel: gr.update(visible=True)}
            result, summary, is_sketch_ignored = session.work.result()
        session.keep(result=result)
        status = layout.summary(summary, service.working_size(model))
        if is_sketch_ignored:
            status += " The sketch was ignored: this model is not sketch-guided."
        yield self._result(result, status)

    async def cancel(self, request: gr.Request) -> None:
        """Cancels the running request."""
        self._session(request).stop()

    async def reset_status(self) -> dict:
        """Shows that nothing is being filled."""
        return {self._parts.status: "", self._parts.cancel: gr.update(visible=False)}

    async def start_over(self, request: gr.Request) -> dict:
        """Removes the image and its result."""
        session = self._session(request)
        session.stop()
        session.keep(source=None, shown=None, shown_before=None, result=None)
        return {
            self._parts.upload: None,
            self._parts.editor: None,
            self._parts.easel: gr.update(visible=False),
            self._parts.result: gr.update(visible=False),
            self._parts.unmask: gr.update(visible=False),
            self._parts.status: layout.CHOOSE,
            self._parts.run: gr.update(interactive=False),
            **dict.fromkeys(self._parts.sides, 0),
        }

    def _result(self, result: Result, status: str) -> dict:
        own = result.own and WRITABLE.get(result.own.suffix.lower())
        return {
            self._parts.result: gr.update(visible=True),
            self._parts.slider: (str(result.before), str(result.after)),
            self._parts.png: str(result.png),
            self._parts.own: gr.update(
                value=own and str(result.own), label=f"Download {own}", visible=own is not None
            ),
            self._parts.hole: str(result.mask),
            self._parts.status: status,
            self._parts.cancel: gr.update(visible=False),
        }

    def _session(self, request: gr.Request) -> Session:
        return self._sessions.of(str(request.session_hash))

    async def _open(self, session: Session, source: Source) -> dict:
        await self._look(session, source)
        session.stop()
        session.keep(result=None)
        return {
            self._parts.easel: gr.update(visible=True),
            self._parts.result: gr.update(visible=False),
            self._parts.unmask: gr.update(visible=False),
            self._parts.status: "",
            self._parts.run: gr.update(interactive=True),
        }

    async def _look(self, session: Session, source: Source) -> None:
        """Makes a source the session's input, and writes its preview."""

        def show() -> Picture:
            picture, hole = source.read(self._service.max_pixels)
            write_preview(shown, picture, hole)
            return picture

        shown = session.new().with_suffix(".jpg")
        async with self._looking:  # Limits memory to one decoded image.
            picture = await asyncio.to_thread(show)
        source = replace(source, jpeg=picture.jpeg, format=picture.format)
        session.keep(source=source, shown=shown, shown_before=session.shown)


async def _waiting(work: asyncio.Task, service: Service) -> AsyncIterator[str]:
    """Says each second what happens until work is done; cancels it if nobody listens any more.

    Raises:
        CancelledError: The work was cancelled.
    """
    began = time.monotonic()
    try:
        while not (await asyncio.wait([work], timeout=min(time.monotonic() - began + 0.2, 1)))[0]:
            yield f"{_activity(work, service)} ... {time.monotonic() - began:.0f} s"
    finally:
        work.cancel()  # Has an effect only if gradio stopped listening before the work was done.
    if work.cancelled():
        raise CancelledError


def _activity(work: asyncio.Task, service: Service) -> str:
    if work.cancelling():
        return "Cancelling"
    if before := service.queue.before(work):
        return f"Waiting: {requests_before(before)}"
    if service.worker.is_starting():  # It is replaced when a request before this one is cancelled.
        return "Starting the process that fills images"
    if size := service.worker.compiling():
        return compiling(*size)
    return "Filling"
