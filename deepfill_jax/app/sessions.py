"""Browser sessions of the web UI, and the files of each."""

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepfill_jax.app.quota import Quota
from deepfill_jax.app.session_files import Result, Source
from deepfill_jax.errors import UsageError

MAX_SESSIONS = 50  # Maximum number of sessions; a new one beyond it ends the least recent one.
UNCLAIMED_SECONDS = 60  # Age at which uploads are deleted that belong to no session.
SWEEP_SECONDS = 10  # Time between two sweeps.


@dataclass
class Session:
    """The state of one browser tab."""

    folder: Path
    source: Source | None = None
    shown: Path | None = None  # Preview of the source.
    shown_before: Path | None = None  # The editor may load it again before it loads the next one.
    result: Result | None = None
    work: asyncio.Future | None = None
    kept: Collection[Path] = ()  # Folders of files that all sessions share.
    # Folders of uploads that were moved or deleted. The editor may upload the same files again.
    uploads: set[Path] = field(default_factory=set)

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
        """Moves an upload to this session's folder; deletes it if the block fails.

        Raises:
            UsageError: The upload was deleted.
        """
        folder = Path(path).parent
        move = shutil.copy if folder in self.kept else shutil.move
        try:
            taken = Path(move(path, self.new()))
        except FileNotFoundError as error:
            raise UsageError("The uploaded file has expired; upload it again.") from error
        self.discard(path)
        try:
            yield taken
        except BaseException:
            taken.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def borrowing(self, path: Path | None) -> Iterator[Path | None]:
        """Moves an upload to this session's folder until the block ends; None stays None."""
        if path is None:
            yield None
            return
        with self.taking(path) as taken:
            yield taken
        taken.unlink(missing_ok=True)

    def discard(self, path: str | Path) -> None:
        """Deletes the folder of an upload, now and when the session ends; other files stay."""
        folder = Path(path).parent
        if folder.parent == self.folder.parent and folder not in {self.folder, *self.kept}:
            self.uploads.add(folder)
            shutil.rmtree(folder, ignore_errors=True)

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
        paths = {self.shown, self.shown_before}
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
        for folder in {self.folder} | self.uploads:
            shutil.rmtree(folder, ignore_errors=True)


class Sessions:
    """The open sessions, by gradio's session hash, and the folder of their files.

    gradio stores uploads in the same folder, and does not say who sent them. The event that follows
    an upload moves the file to the folder of its session, which is deleted when the session ends.
    Uploads without an event, such as those of a browser that has left, are deleted by their age.
    """

    def __init__(self, folder: Path, quota: Quota):
        """Takes the folder, and the quota that is told how large the files are."""
        self._folder, self._quota = folder, quota
        self._sessions: dict[str, Session] = {}
        self._kept: set[Path] = set()

    def keep_what_is_there(self) -> None:
        """Excludes the files that exist now, gradio's copies of the examples, from deletion."""
        self._kept = set(self._folder.iterdir())

    def of(self, key: str) -> Session:
        """Returns the session of this key, and starts it if it does not exist."""
        if key not in self._sessions:
            if len(self._sessions) == MAX_SESSIONS:
                self.end(next(iter(self._sessions)))
            folder = self._folder / secrets.token_hex(16)
            folder.mkdir()
            self._sessions[key] = Session(folder, kept=self._kept)
        self._sessions[key] = self._sessions.pop(key)  # Moves it to the end: most recently used.
        return self._sessions[key]

    def end(self, key: str) -> None:
        """Ends a session if it exists."""
        session = self._sessions.pop(key, None)
        if session is not None:
            session.end()

    def sweep_regularly(self) -> None:
        """Sweeps for ever, in a thread: on the event loop, many files would delay all requests."""
        while True:
            time.sleep(SWEEP_SECONDS)
            with contextlib.suppress(OSError):  # The folder is removed when the server ends.
                self.sweep()

    def sweep(self) -> None:
        """Deletes old uploads that belong to no session, and updates the quota."""
        used, stored = {session.folder for session in list(self._sessions.values())}, 0
        oldest = time.time() - (UNCLAIMED_SECONDS if used else 0)
        with os.scandir(self._folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                with contextlib.suppress(OSError):  # Another thread may have deleted it.
                    if path in used | self._kept or entry.stat().st_mtime >= oldest:
                        stored += _size(entry)
                    elif entry.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
        self._quota.set_stored(stored)


def _size(entry: os.DirEntry[str]) -> int:
    if not entry.is_dir(follow_symlinks=False):
        return entry.stat(follow_symlinks=False).st_size
    with os.scandir(entry.path) as entries:
        return sum(map(_size, entries))
