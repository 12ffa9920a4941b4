"""The pages that are open, and the files that are kept for each."""

import asyncio
import contextlib
import math
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepfill_jax import pictures
from deepfill_jax.app.painting import preview
from deepfill_jax.app.reading import can_keep, read, result_name
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Encoded, Picture

MAX_SESSIONS = 50  # Browsers whose pictures are kept; beyond, that of the oldest is deleted.
_QUALITY = 92  # Of previews, JPEG files.


@dataclass(frozen=True)
class Source:
    """What is to be filled."""

    image: Path
    name: str  # That the picture came with.
    jpeg: Mapping[str, Any] = field(default_factory=dict)  # See `Picture`; no PNG keeps it.
    mask: Path | None = None
    mask_name: str = ""

    def read(self, max_pixels: int) -> tuple[Picture, np.ndarray]:
        """Reads the picture, and its hole, bool [H, W, 1]; raises what `reading.read` does."""
        image = Encoded(self.image.read_bytes(), self.name)
        mask = self.mask and Encoded(self.mask.read_bytes(), self.mask_name)
        picture, hole, _ = read(image, mask, max_pixels=max_pixels)
        return replace(picture, jpeg=self.jpeg or picture.jpeg), hole


class Result(NamedTuple):
    """A filled picture, in a folder of its own."""

    before: Path  # Both as a browser shows them.
    after: Path
    png: Path
    own: Path | None  # In the picture's own format, if that can hold it.


@dataclass
class Session:
    """One browser's page."""

    folder: Path
    source: Source | None = None
    shown: Path | None = None  # The source, as a browser shows it.
    result: Result | None = None
    work: asyncio.Future | None = None
    began: float = field(default_factory=time.time)

    def chosen(self) -> Source:
        """Returns what is to be filled.

        Raises:
            UsageError: No picture was chosen yet.
        """
        if self.source is None:
            raise UsageError("There is no picture yet; choose one first.")
        return self.source

    @contextlib.contextmanager
    def taking(self, path: str | Path) -> Iterator[Path]:
        """Makes a file this session's; deletes it if the block fails."""
        taken = Path(shutil.move(path, self.new()))
        try:
            yield taken
        except BaseException:
            taken.unlink(missing_ok=True)
            raise

    def new(self) -> Path:
        """Returns the path of a file that is to be."""
        return self.folder / secrets.token_hex(8)

    def show(self, picture: Picture, hole: np.ndarray) -> Path:
        """Writes a picture as a browser shows it, with its hole, bool [H, W, 1]."""
        path = self.new().with_suffix(".jpg")
        preview(picture, hole).save(path, quality=_QUALITY)
        return path

    def write(self, name: str, before: Picture, after: Picture) -> Result:
        """Writes a picture of this name that was filled."""
        for left in set(self.folder.glob("*/")) - self._looked_at():
            shutil.rmtree(left)  # By a fill that was stopped.
        folder = self.new()
        folder.mkdir()
        shown = folder / "before.jpg", folder / "after.jpg"
        for path, picture in zip(shown, (before, after), strict=True):
            preview(picture).save(path, quality=_QUALITY)
        png = folder / result_name(name, "png")
        pictures.write(png, after.pixels, after)
        own = folder / result_name(name, "same") if can_keep(name) else None
        if own is not None:
            try:
                pictures.write(own, after.pixels, after)
            except UsageError:  # Its suffix says another format than it had, with more in it.
                own = None
        return Result(*shown, png, own)

    def keep(self, **changed: Any) -> None:
        """Looks at other things, given by attribute, and deletes what nobody looks at any more."""
        before = self._looked_at()
        vars(self).update(changed)
        for path in before - self._looked_at():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _looked_at(self) -> set[Path]:
        found = {self.shown}
        if self.source is not None:
            found |= {self.source.image, self.source.mask}
        if self.result is not None:
            found.add(self.result.png.parent)
        return found - {None}

    def stop(self) -> None:
        """Stops what runs."""
        if self.work is not None:
            self.work.cancel()

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

    def of(self, key: str) -> Session:
        """Returns the session of this name; a new one if there is none."""
        if key not in self._sessions:
            if len(self._sessions) == MAX_SESSIONS:
                self.end(next(iter(self._sessions)))
            folder = self._folder / secrets.token_hex(16)
            folder.mkdir()
            self._sessions[key] = Session(folder)
        self._sessions[key] = self._sessions.pop(key)  # The newest is last.
        return self._sessions[key]

    def end(self, key: str) -> None:
        """Ends a session, if there is one."""
        session = self._sessions.pop(key, None)
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
