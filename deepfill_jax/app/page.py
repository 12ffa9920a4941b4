"""The page, of gradio's parts: what is shown, and what its buttons do."""

import asyncio
import contextlib
import functools
import html
import math
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

# Read when gradio is imported: nothing is told to anyone, nor fetched.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr  # noqa: E402
import gradio.processing_utils  # noqa: E402
import numpy as np  # noqa: E402
import scipy  # noqa: E402
from PIL import Image  # noqa: E402

from deepfill_jax import pictures  # noqa: E402
from deepfill_jax.app.service import (  # noqa: E402
    BusyError,
    GoneError,
    Options,
    Service,
    Sides,
    can_keep,
    plain_name,
    read,
    result_name,
)
from deepfill_jax.errors import UsageError  # noqa: E402
from deepfill_jax.holes import STRATEGIES  # noqa: E402
from deepfill_jax.pictures import WRITABLE, Encoded, Picture  # noqa: E402

SHOWN = 1280  # Pixels of the longest side in the browser; a picture is filled at its own size.
MOST_SESSIONS = 50  # Browsers whose pictures are kept; beyond, that of the oldest is deleted.
EXAMPLES = ("astronaut", "chelsea", "coffee")  # Of scikit-image, where it is installed.
# The brushes, told apart by their colours, at any opacity.
HOLE = (255, 64, 64)
LINE = (64, 64, 255)
_OPACITY = 0.6
CSS = """
.gradio-container > .main {max-width: 1240px !important; margin: 0 auto; padding: 16px 24px}
#title h1 {margin-bottom: 0}
#title p {margin: 0; opacity: 0.75}
#about p, #status p {font-size: 0.85rem; opacity: 0.75; margin: 0}
#upload .wrap {font-size: 0.95rem; padding-top: 20px}
#fill {font-size: 1.1rem}
#sides {gap: 8px; flex-wrap: nowrap}
@media (max-width: 640px) {
  .gradio-container > .main {padding: 8px}
}
"""


@dataclass
class Session:
    """One browser's page."""

    folder: Path
    image: Path | None = None
    name: str = ""  # That the picture came with.
    jpeg: Mapping[str, Any] = field(default_factory=dict)  # See `Picture`; no PNG keeps it.
    mask: Path | None = None
    mask_name: str = ""
    shown: Path | None = None  # A preview of both.
    result: Path | None = None
    work: asyncio.Future | None = None
    began: float = field(default_factory=time.time)

    def source(self) -> tuple[Encoded, Encoded | None]:
        """What is to be filled.

        Raises:
            UsageError: No picture was chosen yet.
        """
        if self.image is None:
            raise UsageError("There is no picture yet; choose one first.")
        mask = None if self.mask is None else Encoded(self.mask.read_bytes(), self.mask_name)
        return Encoded(self.image.read_bytes(), self.name), mask

    def take(self, path: str, kind: str) -> Path:
        """Makes an uploaded file this session's."""
        return Path(shutil.move(path, self.folder / kind))

    def stop(self) -> None:
        """Stops what runs."""
        if self.work is not None:
            self.work.cancel()

    def forget(self) -> None:
        """Deletes what is not looked at any more."""
        kept = {self.image, self.mask, self.shown, self.result and self.result.parent}
        for path in set(self.folder.iterdir()) - kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def end(self) -> None:
        """Stops what runs and deletes what is kept."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The pages that are open, by gradio's name for each."""

    def __init__(self, folder: Path):
        """Keeps files in a folder, where gradio puts what is uploaded as well."""
        self._folder = folder
        self._sessions: dict[str, Session] = {}
        self._kept: set[Path] = set()

    def keep_what_is_there(self) -> None:
        """Counts what is in the folder as nobody's: the examples."""
        self._kept = set(self._folder.rglob("*"))

    def of(self, request: gr.Request) -> Session:
        """Returns the session that asks; a new one if there is none."""
        key = str(request.session_hash)
        if key not in self._sessions:
            if len(self._sessions) == MOST_SESSIONS:
                self.end(next(iter(self._sessions)))
            folder = self._folder / secrets.token_hex(16)
            folder.mkdir()
            self._sessions[key] = Session(folder)
        self._sessions[key] = self._sessions.pop(key)  # The newest is last.
        return self._sessions[key]

    def end(self, key: str) -> None:
        """Ends a session, if there is one."""
        session = self._sessions.pop(str(key), None)
        if session is not None:
            session.end()
        self._sweep()

    def _sweep(self) -> None:
        """Deletes what was uploaded before any open page was: gradio does not tell by whom."""
        oldest = min((x.began for x in self._sessions.values()), default=math.inf)
        own = {session.folder for session in self._sessions.values()}
        for path in set(self._folder.rglob("*")) - self._kept:
            if own.isdisjoint(path.parents) and path.is_file():
                with contextlib.suppress(OSError):  # Another thread was first.
                    if path.stat().st_mtime < oldest:
                        path.unlink()


def make_page(service: Service, folder: Path) -> gr.Blocks:
    """Makes the page, which keeps files below a folder, until a browser leaves it."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    gradio.processing_utils.async_ssrf_protected_get = _fetch_nothing
    # Of the class, as gradio makes an editor anew when it gets other brushes.
    gr.ImageEditor.preprocess = _layers
    sessions = Sessions(folder)
    names = list(service.models)
    looking = asyncio.Lock()

    def shown(session: Session) -> dict:
        """What the editor shows of a session's picture and mask."""
        image, mask = session.source()
        picture, hole, _ = read(image, mask, max_pixels=service.max_pixels)
        if not session.jpeg:
            session.jpeg = picture.jpeg
        session.shown = session.folder / f"shown_{secrets.token_hex(4)}.jpg"
        preview(picture, hole).save(session.shown, quality=92)
        session.forget()
        return {"background": str(session.shown), "layers": [], "composite": None}

    async def look(session: Session) -> dict:
        async with looking:  # One picture is in memory.
            return await asyncio.to_thread(shown, session)

    async def choose(session: Session, image: Path, name: str, jpeg: Mapping[str, Any]) -> dict:
        session.stop()
        before = replace(session)
        session.image, session.name, session.jpeg = image, name, jpeg
        session.mask = session.result = None
        try:
            return await look(session)
        except UsageError:
            vars(session).update(vars(before))
            raise

    def nothing_filled() -> dict:
        return {
            easel: gr.update(visible=True),
            result: gr.update(visible=False),
            remove: gr.update(visible=False),
            status: "",
        }

    async def open_picture(request: gr.Request, path: str) -> dict:
        session = sessions.of(request)
        image = session.take(path, f"image_{secrets.token_hex(4)}")
        view = await choose(session, image, plain_name(path), {})
        return {upload: None, editor: view, **nothing_filled()}

    async def open_example(request: gr.Request, index: int) -> dict:
        session = sessions.of(request)
        image = session.folder / f"image_{secrets.token_hex(4)}"
        shutil.copy(examples[index], image)
        return {editor: await choose(session, image, examples[index].name, {}), **nothing_filled()}

    async def open_mask(request: gr.Request, path: str) -> dict:
        session = sessions.of(request)
        before = session.mask, session.mask_name
        session.mask = session.take(path, f"mask_{secrets.token_hex(4)}")
        session.mask_name = plain_name(path)
        try:
            view = await look(session)
        except UsageError:
            session.mask, session.mask_name = before
            raise
        return {editor: view, remove: gr.update(visible=True)}

    async def remove_mask(request: gr.Request) -> dict:
        session = sessions.of(request)
        session.mask = None
        return {editor: await look(session), remove: gr.update(visible=False)}

    async def fill(
        request: gr.Request,
        layers: Sequence[Path],
        model: str,
        strategy: str,
        dilate: float,
        feather: float,
        *sides: float,
    ) -> dict:
        session = sessions.of(request)
        extension = Sides(*(int(side or 0) for side in sides))
        options = Options(model, strategy, int(dilate), int(feather), extension)

        def work(stop):
            picture, hole, _ = read(*session.source(), max_pixels=service.max_pixels)
            lines = np.zeros_like(hole)
            for layer in layers:
                for area, more in zip((hole, lines), painted(layer.read_bytes()), strict=True):
                    area |= pictures.resize_mask(more, *area.shape[:2])
            sketch = lines if service.guided(model) else None
            filled = service.fill(picture, hole, sketch, options, stop)
            after = replace(filled.before, pixels=filled.pixels, jpeg=session.jpeg)
            left_out = sketch is None and lines.any()
            return filled, after, left_out, _write(session, filled.before, after)

        with service.place():
            session.stop()
            session.work = asyncio.ensure_future(service.turn(work))
            filled, after, left_out, written = await _end_of(session.work)
        before_path, after_path, png, own = written
        session.result = png
        session.forget()
        kind = WRITABLE.get(png.suffix if own is None else own.suffix.lower())
        told = f"{pictures.size(after.pixels)} pixels, {filled.strategy}, {filled.seconds:.1f} s"
        if left_out:
            told += ". The lines were left out: this model takes none."
        return {
            result: gr.update(visible=True),
            slider: (str(before_path), str(after_path)),
            download: str(png),
            download_own: gr.update(
                value=own and str(own), label=f"Download {kind}", visible=own is not None
            ),
            status: told,
        }

    async def again(request: gr.Request) -> dict:
        session = sessions.of(request)
        if session.result is None:
            raise UsageError("There is no result yet; fill the picture first.")
        image = session.result.rename(session.folder / f"image_{secrets.token_hex(4)}")
        view = await choose(session, image, session.name, session.jpeg)
        zeros = dict.fromkeys(sides, 0)
        return {editor: view, **nothing_filled(), **zeros}

    def take_model(name: str) -> dict:
        return {
            title: _help(service.guided(name)),
            about: _about(service, name),
            editor: gr.update(brush=_brush(service.guided(name))),
        }

    async def enter(request: gr.Request) -> None:
        sessions.of(request)

    async def leave(request: gr.Request) -> None:
        sessions.end(request.session_hash)

    with gr.Blocks(title="deepfill", analytics_enabled=False) as page:
        title = gr.Markdown(_help(service.guided(names[0])), elem_id="title")
        with gr.Row():
            with gr.Column(scale=3, min_width=340):
                upload = gr.File(
                    label="Picture",
                    file_types=["image", ".heic", ".heif", ".hif", ".avif"],
                    height=150,
                    elem_id="upload",
                )
                examples = _examples()
                if examples:
                    chosen = gr.Dataset(
                        components=[gr.Image(visible=False)],
                        samples=[[str(path)] for path in examples],
                        type="index",
                        label="Or an example",
                        elem_id="examples",
                    )
                with gr.Column(visible=False) as easel:
                    editor = gr.ImageEditor(
                        label="Paint the hole",
                        sources=(),
                        transforms=(),
                        layers=False,
                        brush=_brush(service.guided(names[0])),
                        eraser=gr.Eraser(default_size=24),
                        buttons=["fullscreen"],
                        height="min(540px, 110vw)",
                        elem_id="editor",
                    )
                    with gr.Row():
                        mask = gr.UploadButton(
                            "Mask from a file", file_types=["image"], size="sm", elem_id="mask"
                        )
                        remove = gr.Button(
                            "Remove that mask", size="sm", visible=False, elem_id="unmask"
                        )
            with gr.Column(scale=2, min_width=340):
                run = gr.Button("Fill", variant="primary", size="lg", elem_id="fill")
                with gr.Column(visible=False) as result:
                    slider = gr.ImageSlider(
                        label="Before and after",
                        interactive=False,
                        buttons=["fullscreen"],
                        elem_id="result",
                    )
                    status = gr.Markdown(elem_id="status")
                    with gr.Row():
                        download = gr.DownloadButton("Download PNG", elem_id="png")
                        download_own = gr.DownloadButton(visible=False, elem_id="own")
                    once_more = gr.Button("Fill again on the result", elem_id="again")
                model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
                about = gr.Markdown(_about(service, names[0]), elem_id="about")
                strategy = gr.Radio(
                    STRATEGIES,
                    value="auto",
                    label="Strategy",
                    info="How large pictures are filled: whole, scaled down, or hole by hole.",
                )
                dilate = gr.Slider(
                    0, 64, 0, step=1, label="Dilate", info="Pixels by which the hole is widened."
                )
                feather = gr.Slider(
                    0,
                    64,
                    0,
                    step=1,
                    label="Feather",
                    info="Pixels of those over which fill and picture blend.",
                )
                with gr.Accordion("Extend the picture", open=False, elem_id="extend"):
                    with gr.Row(elem_id="sides"):
                        sides = [
                            gr.Number(0, label=side, minimum=0, precision=0, min_width=60)
                            for side in ("Top", "Right", "Bottom", "Left")
                        ]
        opened = [upload, easel, editor, result, remove, status]
        listen = functools.partial(_listen, api_visibility="private")
        listen(upload.upload, open_picture, [upload], opened)
        if examples:
            listen(chosen.click, open_example, [chosen], opened)
        listen(mask.upload, open_mask, [mask], [editor, remove])
        listen(remove.click, remove_mask, [], [editor, remove])
        listen(
            run.click,
            fill,
            [editor, model, strategy, dilate, feather, *sides],
            [result, slider, download, download_own, status],
        )
        listen(once_more.click, again, [], [*opened, *sides])
        described = [title, about, editor]
        listen(model.change, take_model, [model], described, show_progress="hidden")
        listen(page.load, enter, [], [])
        page.unload(leave)
    sessions.keep_what_is_there()
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


def _listen(event, function, inputs, outputs, **options) -> None:
    """Has a part of the page call a function; what was used wrongly is shown in a box."""

    @functools.wraps(function)
    async def call(*arguments, **named):
        try:
            made = function(*arguments, **named)
            return await made if asyncio.iscoroutine(made) else made
        except (UsageError, BusyError, GoneError) as error:
            raise gr.Error(
                html.escape(str(error)), title="That did not work", print_exception=False
            ) from error

    event(call, inputs, outputs, **options)


async def _end_of(work: asyncio.Future):
    try:
        await asyncio.wait([work])
    finally:
        work.cancel()  # If gradio gives up waiting, and not if it is done.
    if work.cancelled():
        raise GoneError
    return work.result()


async def _fetch_nothing(url: str):
    """In the place of what gradio fetches for a client that names an address instead of a file."""
    raise gr.Error("Files are uploaded here, not fetched.", print_exception=False)


def _layers(editor: gr.ImageEditor, payload) -> list[Path]:
    """The files of what was painted, which gradio would decode, whatever their size."""
    return [Path(layer.path) for layer in payload.layers if layer]


def painted(layer: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Finds hole and lines in a layer of the editor, a PNG file: bool [H, W, 1] each.

    What is nearer to the line's colour than to the hole's is a line. As a line hides what it is
    painted over, it is hole as well, if it is connected to the hole's colour; if not, it is none,
    and counts where another hole is.

    Raises:
        UsageError: It is no such file.
    """
    picture = pictures.read(Encoded(layer, "What was painted"), max_pixels=4 * SHOWN**2)
    if picture.alpha is None:
        raise UsageError("What was painted has no transparency; paint it on the page.")
    is_painted = picture.alpha[..., 0] > 0
    to_hole, to_line = (
        np.square(picture.pixels - np.float32(colour)).sum(axis=2) for colour in (HOLE, LINE)
    )
    is_line = is_painted & (to_line < to_hole)
    parts, _ = scipy.ndimage.label(is_painted, np.ones((3, 3)))
    hole = is_painted & np.isin(parts, parts[is_painted & ~is_line])
    return hole[..., np.newaxis], is_line[..., np.newaxis]


def preview(picture: Picture, hole: np.ndarray | None = None) -> Image.Image:
    """Makes what a browser shows: RGB, at most `SHOWN` pixels a side, the hole in its colour."""
    pixels = picture.pixels
    scale = min(1.0, SHOWN / max(pixels.shape[:2]))
    size = tuple(max(round(scale * side), 1) for side in pixels.shape[1::-1])

    def small(x: np.ndarray) -> np.ndarray:
        bytes_ = (x >> 8).astype(np.uint8) if x.dtype == np.uint16 else x
        one = Image.fromarray(bytes_[..., 0] if bytes_.shape[2] == 1 else bytes_)
        resized = np.asarray(one.resize(size, Image.Resampling.BOX), np.float32)
        return resized.reshape(size[1], size[0], -1)

    image = small(pixels)
    if picture.alpha is not None:
        opacity = small(picture.alpha) / 255
        image = image * opacity + 255 * (1 - opacity)
    if hole is not None and hole.any():
        share = _OPACITY * small(hole * np.uint8(255)) / 255
        image = image * (1 - share) + np.array(HOLE) * share
    rgb = np.broadcast_to(image, (size[1], size[0], 3))
    return Image.fromarray(np.rint(rgb).astype(np.uint8))


def _write(
    session: Session, before: Picture, after: Picture
) -> tuple[Path, Path, Path, Path | None]:
    """Writes a result: both previews, PNG, and the picture's own format if that can hold it."""
    folder = session.folder / secrets.token_hex(4)
    folder.mkdir()
    shown = folder / "before.jpg", folder / "after.jpg"
    for path, picture in zip(shown, (before, after), strict=True):
        preview(picture).save(path, quality=92)
    png = folder / result_name(session.name, "png")
    pictures.write(png, after.pixels, after)
    own = None
    if can_keep(session.name):
        own = folder / result_name(session.name, "keep")
        try:
            pictures.write(own, after.pixels, after)
        except UsageError:  # Its suffix says another format than it had, with more in it.
            own = None
    return *shown, png, own


def _brush(guided: bool) -> gr.Brush:
    colours = (HOLE, LINE) if guided else (HOLE,)
    return gr.Brush(
        colors=[(f"rgb{colour}", _OPACITY) for colour in colours],
        color_mode="fixed",
        default_size=24,
    )


def _help(guided: bool) -> str:
    told = "Paint over what is to go, and fill it."
    if guided:
        # As thick as the lines of HED are that models train on: 4 to 6 pixels of 178.
        told = (
            "Paint over what is to go; draw lines on it in blue, about 1/40 as thick as the face "
            "or scene is wide, for the fill to follow; and fill it."
        )
    return f"# deepfill\n{told}"


def _about(service: Service, name: str) -> str:
    licence = service.licence(name) or "not stated in its file"
    return (
        f"Model **{html.escape(name)}**: DeepFillv2, {service.models[name].variant.name}, for "
        f"{service.working_size(name)} px. Licence of its weights: {html.escape(licence)}."
    )


def _examples() -> list[Path]:
    """Photographs that lie in scikit-image's package."""
    try:
        from skimage import data
    except ImportError:
        return []
    folder = Path(data.__file__).parent
    return [path for name in EXAMPLES for path in folder.glob(f"{name}.*")]


def theme() -> gr.themes.Base:
    """Colours, and the fonts that a machine has."""
    return gr.themes.Soft(
        primary_hue="indigo",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
