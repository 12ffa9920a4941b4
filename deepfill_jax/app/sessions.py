"""Browser sessions of the web UI, and the files of each."""

import asyncio
import contextlib
import math
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepfill_jax.app.session_files import Result, Source
from deepfill_jax.errors import UsageError

MAX_SESSIONS = 50  # Maximum number of sessions; a new one beyond it ends the least recent one.


@dataclass
class Session:
    """The state of one browser tab."""

    folder: Path
    source: Source | None = None
    shown: Path | None = None  # Preview of the source.
    result: Result | None = None
    work: asyncio.Future | None = None
    began: float = field(default_factory=time.time)

    def chosen(self) -> Source:
        """Returns the input image.

        Raises:
            UsageError: No image was chosen yet.
        """
        if self.source is None:
            raise UsageError("There is no image yet; choose one first.")
        return self.source

    @contextlib.contextmanager
    def taking(self, path: str | Path) -> Iterator[Path]:
        """Moves a file to this session's folder; deletes it if the block fails."""
        taken = Path(shutil.move(path, self.new()))
        try:
            yield taken
        except BaseException:
            taken.unlink(missing_ok=True)
            raise

    def new(self) -> Path:
        """Returns an unused path in the session's folder."""
        return self.folder / secrets.token_hex(8)

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        """Gives the path of a folder to make; deletes the folder if the block fails."""
        folder = self.new()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def keep(self, **changed: Any) -> None:
        """Sets attributes, and deletes the files that are no longer in use."""
        before = self._used_paths()
        vars(self).update(changed)
        for path in before - self._used_paths():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _used_paths(self) -> set[Path]:
        """Returns the files and folders in use."""
        paths = {self.shown}
        if self.source is not None:
            paths |= {self.source.image, self.source.mask}
        if self.result is not None:
            paths.add(self.result.png.parent)
        return {path for path in paths if path is not None}

    def stop(self) -> None:
        """Cancels the running request."""
        if self.work is not None:
            self.work.cancel()

    def end(self) -> None:
        """Cancels the running request and deletes the session's files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The open sessions, by gradio's session hash."""

    def __init__(self, folder: Path):
        """Keeps the sessions' files in a folder, in which gradio stores uploads as well."""
        self._folder = folder
        self._sessions: dict[str, Session] = {}
        self._kept: set[Path] = set()

    def keep_what_is_there(self) -> None:
        """Excludes the files that exist now, gradio's copies of the examples, from deletion."""
        self._kept = set(self._folder.rglob("*"))

    def of(self, key: str) -> Session:
        """Returns the session of this key, and starts it if it does not exist."""
        if key not in self._sessions:
            if len(self._sessions) == MAX_SESSIONS:
                self.end(next(iter(self._sessions)))
            folder = self._folder / secrets.token_hex(16)
            folder.mkdir()
            self._sessions[key] = Session(folder)
        self._sessions[key] = self._sessions.pop(key)  # Moves it to the end: most recently used.
        return self._sessions[key]

    def end(self, key: str) -> None:
        """Ends a session if it exists."""
        session = self._sessions.pop(key, None)
        if session is not None:
            session.end()
        self._sweep()

    def _sweep(self) -> None:
        """Deletes uploads older than every session, because gradio does not say whose they are."""
        oldest = min((x.began for x in self._sessions.values()), default=math.inf)
        own = {session.folder for session in self._sessions.values()}
        for path in set(self._folder.rglob("*")) - self._kept:
            if own.isdisjoint(path.parents) and path.is_file():
                with contextlib.suppress(OSError):  # Another thread may have deleted it.
                    if path.stat().st_mtime < oldest:
                        path.unlink()
