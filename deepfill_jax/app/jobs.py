"""The jobs of the worker process: from the files of a request to those of its response.

A job runs there as a whole, so that decoding and encoding can be ended like inpainting, and pixels
are not copied between processes.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepfill_jax import compile_cache, pictures
from deepfill_jax.app.filling import Filler, Options, Summary
from deepfill_jax.app.packing import unpack
from deepfill_jax.app.painting import painted
from deepfill_jax.app.queue import CancelledError
from deepfill_jax.app.reading import Format, read, result_name
from deepfill_jax.app.session_files import Result, Source, write_result
from deepfill_jax.app.shared_flags import Flags
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.pictures import Encoded, Picture


class CompletedFile(NamedTuple):
    """The file of a completed image."""

    name: str
    content: bytes
    summary: Summary
    warnings: tuple[str, ...]  # See `Inputs`.


def complete_files(
    filler: Filler,
    image: Encoded,
    mask: Encoded | None,
    sketch: Encoded | None,
    options: Options,
    format: Format,
) -> CompletedFile:
    """Completes the image of an API request.

    Raises:
        UsageError: A file cannot be used, or see `Filler.fill`.
    """
    inputs = read(image, mask, sketch, options.mask, max_pixels=filler.limits.max_pixels)
    picture, hole = inputs.picture, inputs.hole
    assert hole is not None  # `read` makes an empty one if there is none.
    name = result_name(image.name, format, picture.format)
    pictures.check_writable(name, picture)
    filled = filler.fill(picture, hole, inputs.sketch, options)
    content = pictures.encode(name, filled.pixels, filled.before)
    return CompletedFile(name, content, filled.summary, inputs.warnings)


def complete_session(
    filler: Filler, source: Source, layer: Path | None, options: Options, folder: Path
) -> tuple[Result, Summary, bool]:
    """Completes the image of a session of the web UI.

    Args:
        filler: Fills the hole.
        source: The image and its uploaded mask.
        layer: PNG file of the painted layer; None if there is none.
        options: The inpainting options.
        folder: A new folder for the result.

    Returns:
        The files, how the image was filled, and whether a painted sketch was ignored because the
        model does not take sketches.

    Raises:
        UsageError: A file cannot be used, or see `Filler.fill`.
    """
    picture, hole, lines = _inputs(source, layer, filler.limits.max_pixels)
    is_guided = filler.guided(options.model)
    filled = filler.fill(picture, hole, lines if is_guided else None, options)
    result = write_result(folder, source.name, filled)
    return result, filled.summary, bool(lines.any()) and not is_guided


def _inputs(
    source: Source, layer: Path | None, max_pixels: int
) -> tuple[Picture, np.ndarray, np.ndarray]:
    """Reads the image, its hole and its lines, bool [H, W, 1] each."""
    picture, hole, *_ = source.read(max_pixels)
    assert hole is not None  # `Source.read` makes an empty one if there is none.
    if layer is None:
        return picture, hole, np.zeros_like(hole)
    areas = painted(layer.read_bytes())
    more, lines = (pictures.resize_mask(area, *hole.shape[:2]) for area in areas)
    if picture.kept_share is not None:  # Painted pixels are replaced whole.
        kept = np.where(more, np.float32(0), picture.kept_share)
        picture = replace(picture, kept_share=kept)
    return picture, hole | more, lines


def run_jobs(connection: Connection, flags: Flags) -> None:
    """Receives the models and the limits, then runs one job after the other for ever."""
    compile_cache.enable()
    models, limits = connection.recv()
    filler = Filler({name: unpack(packed) for name, packed in models.items()}, limits, flags)
    connection.send("ready")
    while True:
        job, arguments, options = connection.recv()
        connection.send(_outcome(job, filler, *arguments, **options))


def _outcome(job: Callable, *arguments: Any, **options: Any) -> tuple[Any, Exception | None]:
    """Calls a job, and returns its result and its error; both are None if it was stopped."""
    try:
        return job(*arguments, **options), None
    except CancelledError:
        return None, None
    except (UsageError, RunError) as expected:
        return None, expected
    except Exception as unexpected:
        logging.getLogger(__name__).exception("A request failed.")
        return None, RunError(f"The request failed: {type(unexpected).__name__}: {unexpected}")
