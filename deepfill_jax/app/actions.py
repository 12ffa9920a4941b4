"""Event handlers of the web UI."""

import asyncio
import html
import shutil
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import gradio as gr

from deepfill_jax.app import jobs, layout
from deepfill_jax.app.filling import Options, Sides, Summary
from deepfill_jax.app.reading import plain_name
from deepfill_jax.app.restricted import EditorFiles
from deepfill_jax.app.service import Service
from deepfill_jax.app.session_files import LABELLED, Result, Source, write_preview
from deepfill_jax.app.sessions import Session, Sessions
from deepfill_jax.app.waiting import waiting
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inputs import Inputs
from deepfill_jax.inpaint.windows import BUDGET, Strategy
from deepfill_jax.pictures import WRITABLE, MaskOptions, Orientation


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

    async def open_mask(
        self,
        request: gr.Request,
        path: str,
        threshold: float,
        orientation: Orientation,
        unchecked: bool,
    ) -> dict:
        """Opens an uploaded mask."""
        session = self._session(request)
        options = _mask_options(threshold, orientation, unchecked)
        with session.taking(path) as mask:
            chosen = session.chosen()
            named = replace(chosen, mask=mask, mask_name=plain_name(path), mask_options=options)
            await self._look(session, named)
        return {self._parts.unmask: gr.update(visible=True)}

    async def take_mask_options(
        self, request: gr.Request, threshold: float, orientation: Orientation, unchecked: bool
    ) -> dict:
        """Reads the uploaded mask, if there is one, with other options."""
        session = self._session(request)
        if session.source and session.source.mask:
            options = _mask_options(threshold, orientation, unchecked)
            await self._look(session, replace(session.source, mask_options=options))
        return {}

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
        budget: float,
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
        mask_options = session.chosen().mask_options
        extension = Sides(*(int(side or 0) for side in sides))
        edges = int(dilate), int(feather)
        options = Options(
            *(model, strategy, *edges, extension, mask_options, detail, seamless),
            budget=budget if strategy == "auto" else BUDGET,  # The slider is for "auto" alone.
        )

        def work(stop: threading.Event) -> tuple[Result, Summary, bool]:
            arguments = session.chosen(), layer, options
            with session.new_folder() as folder:
                return service.worker.run(stop, jobs.complete_session, *arguments, folder)

        with service.queue.slot(), session.borrowing(files.layer) as layer:
            session.stop()
            session.work = asyncio.ensure_future(service.queue.exclusive(work))
            async for status in waiting(session.work, service):
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

        def show() -> Inputs:
            inputs = source.read(self._service.max_pixels)
            write_preview(shown, inputs.picture, inputs.hole)
            return inputs

        shown = session.new().with_suffix(".jpg")
        async with self._looking:  # Limits memory to one decoded image.
            picture, *_, warnings = await asyncio.to_thread(show)
        for warning in warnings:
            gr.Warning(html.escape(warning))
        source = replace(source, jpeg=picture.jpeg, format=picture.format)
        session.keep(source=source, shown=shown, shown_before=session.shown)


def _mask_options(threshold: float, orientation: Orientation, unchecked: bool) -> MaskOptions:
    return LABELLED._replace(threshold=threshold, orientation=orientation, check=not unchecked)
