"""What the page does when its parts are used."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np

from deepfill_jax import pictures
from deepfill_jax.app import layout
from deepfill_jax.app.painting import painted
from deepfill_jax.app.queue import CancelledError
from deepfill_jax.app.reading import plain_name
from deepfill_jax.app.service import Options, Service, Sides
from deepfill_jax.app.sessions import Session, Sessions, Source
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import WRITABLE


class Actions:
    """Each public method is one: it returns what changes, by part of the layout.

    It raises what people are told: `UsageError`, `QueueFullError` or `CancelledError`.
    """

    def __init__(self, service: Service, sessions: Sessions, parts: layout.Layout):
        """Acts on sessions and shows it on a page."""
        self._service, self._sessions, self._parts = service, sessions, parts
        self._looking = asyncio.Lock()

    async def enter(self, request: gr.Request) -> None:
        """Begins a session."""
        self._session(request)

    async def leave(self, request: gr.Request) -> None:
        """Ends a session."""
        self._sessions.end(str(request.session_hash))

    async def open_picture(self, request: gr.Request, path: str) -> dict:
        """Begins with a picture that was uploaded."""
        session = self._session(request)
        with session.taking(path) as image:
            changes = await self._open(session, Source(image, plain_name(path)))
        return {self._parts.upload: None, **changes}

    async def open_example(self, request: gr.Request, index: int) -> dict:
        """Begins with one of the examples."""
        session, example = self._session(request), layout.examples()[index]
        image = Path(shutil.copy(example, session.new()))
        return await self._open(session, Source(image, example.name))

    async def again(self, request: gr.Request) -> dict:
        """Begins with the result."""
        session = self._session(request)
        if session.result is None:
            raise UsageError("There is no result yet; fill the picture first.")
        with session.taking(session.result.png) as image:
            source = Source(image, session.chosen().name, session.chosen().jpeg)
            changes = await self._open(session, source)
        return changes | dict.fromkeys(self._parts.sides, 0)

    async def open_mask(self, request: gr.Request, path: str) -> dict:
        """Takes a mask that was uploaded."""
        session = self._session(request)
        with session.taking(path) as mask:
            source = replace(session.chosen(), mask=mask, mask_name=plain_name(path))
            view = await self._look(session, source)
        return {self._parts.editor: view, self._parts.unmask: gr.update(visible=True)}

    async def remove_mask(self, request: gr.Request) -> dict:
        """Leaves the mask that was uploaded."""
        session = self._session(request)
        view = await self._look(session, replace(session.chosen(), mask=None))
        return {self._parts.editor: view, self._parts.unmask: gr.update(visible=False)}

    async def take_model(self, name: str) -> dict:
        """Says what a model is, and gives its brushes."""
        return {
            self._parts.title: layout.title(self._service, name),
            self._parts.about: layout.about(self._service, name),
            self._parts.editor: gr.update(brush=layout.brush(self._service, name)),
        }

    async def fill(
        self,
        request: gr.Request,
        layer: Path | None,
        model: str,
        strategy: str,
        dilate: float,
        feather: float,
        *sides: float,
    ) -> dict:
        """Fills the hole; `layer` is what was painted, a PNG file."""
        session, service = self._session(request), self._service
        extension = Sides(*(int(side or 0) for side in sides))
        options = Options(model, strategy, int(dilate), int(feather), extension)

        def work(stop):
            source = session.chosen()
            picture, hole = source.read(service.max_pixels)
            lines = np.zeros_like(hole)
            if layer is not None:
                areas = painted(layer.read_bytes())
                more, lines = (pictures.resize_mask(area, *hole.shape[:2]) for area in areas)
                hole |= more
            sketch = lines if service.guided(model) else None
            filled = service.fill(picture, hole, sketch, options, stop)
            after = replace(filled.before, pixels=filled.pixels)
            told = (
                f"{pictures.size(after.pixels)} pixels, {filled.strategy}, {filled.seconds:.1f} s"
            )
            if sketch is None and lines.any():
                told += ". The lines were left out: this model takes none."
            return session.write(source.name, filled.before, after), told

        with service.queue.slot():
            session.stop()
            session.work = asyncio.ensure_future(service.queue.exclusive(work))
            result, told = await _end_of(session.work)
        session.keep(result=result)
        own = result.own and WRITABLE.get(result.own.suffix.lower())
        return {
            self._parts.result: gr.update(visible=True),
            self._parts.slider: (str(result.before), str(result.after)),
            self._parts.png: str(result.png),
            self._parts.own: gr.update(
                value=own and str(result.own), label=f"Download {own}", visible=own is not None
            ),
            self._parts.status: told,
        }

    def _session(self, request: gr.Request) -> Session:
        return self._sessions.of(str(request.session_hash))

    async def _open(self, session: Session, source: Source) -> dict:
        view = await self._look(session, source)
        session.stop()
        session.keep(result=None)
        return {
            self._parts.editor: view,
            self._parts.easel: gr.update(visible=True),
            self._parts.result: gr.update(visible=False),
            self._parts.unmask: gr.update(visible=False),
            self._parts.status: "",
        }

    async def _look(self, session: Session, source: Source) -> dict:
        """Looks at another source, and returns what the editor shows of it."""

        def show():
            picture, hole = source.read(self._service.max_pixels)
            return picture.jpeg, session.show(picture, hole)

        async with self._looking:  # One picture is in memory.
            jpeg, shown = await asyncio.to_thread(show)
        session.keep(source=replace(source, jpeg=jpeg), shown=shown)
        return {"background": str(shown), "layers": [], "composite": None}


async def _end_of(work: asyncio.Future):
    try:
        await asyncio.wait([work])
    finally:
        work.cancel()  # If gradio gives up waiting, and not if it is done.
    if work.cancelled():
        raise CancelledError
    return work.result()
