"""Subclasses of gradio's classes that restrict the processing of client data."""

from abc import ABCMeta
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.component_meta import ComponentMeta
from gradio_client.utils import is_http_url_like


class _WithoutStub(ComponentMeta):
    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> ABCMeta:
        # ComponentMeta would write a type stub, a .pyi file, into the installed package.
        return ABCMeta.__new__(cls, name, bases, attributes)


class EditorFiles(NamedTuple):
    """The files that a browser uploads from the editor."""

    layer: Path | None  # PNG file of the painted layer; None if there is none.
    unused: list[Path]  # The background and the composite of background and layer.


class Editor(gr.ImageEditor, metaclass=_WithoutStub):
    """An image editor whose value is the uploaded files instead of their pixels."""

    is_template = True  # The frontend is that of the base class.

    def preprocess(self, payload: Any) -> Any:
        """Returns the `EditorFiles`; gradio would decode them whatever their size."""
        if payload is None:  # There is no image yet.
            return EditorFiles(None, [])
        layers = [Path(layer.path) for layer in payload.layers if layer]
        others = (payload.background, payload.composite)
        unused = [Path(file.path) for file in others if file]
        return EditorFiles(layers[0] if layers else None, unused + layers[1:])


class Blocks(gr.Blocks):
    """A web UI that does not download the files that a client names by a URL."""

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], *arguments: Any, **options: Any
    ) -> list[Any]:
        """Refuses URLs, which gradio would fetch."""
        if any(map(is_http_url_like, _paths(inputs))):
            raise gr.Error("URLs are not fetched; upload a file instead.", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *arguments, **options)


def _paths(data: Any) -> Iterator[Any]:
    """Finds the paths of all files in the JSON data of an event."""
    if isinstance(data, dict):
        yield data.get("path")
    if isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _paths(value)
