"""The web UI: connects components to event handlers."""

import contextlib
import functools
import html
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.events import Dependency

from deepfill_jax.app.actions import Actions
from deepfill_jax.app.layout import Layout
from deepfill_jax.app.queue import CancelledError, QueueFullError
from deepfill_jax.app.restricted import Blocks
from deepfill_jax.app.service import Service
from deepfill_jax.app.sessions import Sessions
from deepfill_jax.errors import RunError, UsageError

Handler = Callable[..., Any]  # A method of `Actions`.

_HIDDEN = {"show_progress": "hidden"}


def make_page(service: Service, folder: Path) -> gr.Blocks:
    """Makes the web UI, which keeps each browser's files below a folder until the page closes."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    sessions = Sessions(folder, service.quota)
    with Blocks(title="deepfill", analytics_enabled=False) as page:
        parts = Layout(service)
        actions = Actions(service, sessions, parts)

        _connect_sources(parts, actions)
        _connect_filling(parts, actions)
        _listen(page.load, actions.enter, [], [])
        page.unload(actions.leave)
    sessions.keep_what_is_there()
    threading.Thread(target=sessions.sweep_regularly, daemon=True).start()
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


def _connect_sources(parts: Layout, actions: Actions) -> None:
    opened = [parts.easel, parts.result, parts.unmask, parts.status, parts.run]
    everything = [parts.upload, parts.editor, *opened, *parts.sides]
    mask_options = [parts.threshold, parts.orientation, parts.unchecked]
    for event, action, inputs, outputs in (
        (parts.upload.upload, actions.open_picture, [parts.upload], [parts.upload, *opened]),
        (parts.example.click, actions.open_example, [parts.example], opened),
        (parts.again.click, actions.again, [], [*opened, *parts.sides]),
        (parts.mask.upload, actions.open_mask, [parts.mask, *mask_options], [parts.unmask]),
        (parts.unmask.click, actions.remove_mask, [], [parts.unmask]),
        (parts.threshold.release, actions.take_mask_options, mask_options, []),
        (parts.orientation.input, actions.take_mask_options, mask_options, []),
        (parts.unchecked.input, actions.take_mask_options, mask_options, []),
    ):
        chosen = _listen(event, action, inputs, outputs)
        # The editor never ends loading an image over painted strokes, so it is cleared before.
        cleared = chosen.success(
            None, [], parts.editor, js="() => null", api_visibility="private", **_HIDDEN
        )
        _listen(cleared.then, actions.show, [], [parts.editor])
    _listen(parts.start_over.click, actions.start_over, [], everything)
    _listen(
        parts.model.change,
        actions.take_model,
        [parts.model],
        [parts.title, parts.about, parts.editor],
        **_HIDDEN,
    )


def _connect_filling(parts: Layout, actions: Actions) -> None:
    _say(parts.status, parts.run.click, "Filling ...")
    filling = _listen(
        parts.run.click,
        actions.fill,
        [
            *(parts.editor, parts.model, parts.strategy, parts.budget, parts.detail),
            *(parts.seamless, parts.dilate, parts.feather, *parts.sides),
        ],
        [
            *(parts.cancel, parts.hole),
            *(parts.result, parts.slider, parts.png, parts.own, parts.status),
        ],
        **_HIDDEN,
    )
    _listen(filling.failure, actions.reset_status, [], [parts.status, parts.cancel], **_HIDDEN)
    _listen(parts.cancel.click, actions.cancel, [], [])


def _listen(
    event: Callable[..., Dependency],
    action: Handler,
    inputs: Sequence[Block],
    outputs: Sequence[Block],
    **options: Any,
) -> Dependency:
    return event(_with_error_box(action), inputs, outputs, api_visibility="private", **options)


def _say(part: gr.Markdown, event: Callable[..., Dependency], words: str) -> None:
    """Makes the browser show words on an event, without a request to the server."""
    event(None, [], part, js=f"() => '{words}'", api_visibility="private", **_HIDDEN)


def _with_error_box(action: Handler) -> Handler:
    """Wraps an event handler so that its errors are shown in a box."""

    @contextlib.contextmanager
    def boxed() -> Iterator[None]:
        try:
            yield
        except (UsageError, RunError, QueueFullError, CancelledError) as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    @functools.wraps(action)
    async def call(*arguments: Any) -> Any:
        with boxed():
            return await action(*arguments)

    @functools.wraps(action)
    async def call_generator(*arguments: Any) -> AsyncIterator[Any]:
        with boxed():
            async with contextlib.aclosing(action(*arguments)) as updates:
                async for update in updates:
                    yield update

    return call_generator if inspect.isasyncgenfunction(action) else call
