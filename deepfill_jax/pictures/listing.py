"""Lists the image files below a folder."""

import collections
import os
from collections.abc import Iterator
from typing import NamedTuple

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import rgb

# Folders of thumbnails, deleted files and metadata whose names do not begin with a dot: of Synology
# NAS, of archives made by macOS, of Windows, and of file systems that were repaired.
SYSTEM_FOLDERS = frozenset({"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found"})
_MAX_NAMED_FOLDERS = 5  # Number of folders that a message names.


class Listing(NamedTuple):
    """The files below a folder.

    Attributes:
        paths: The image files by suffix, sorted.
        others: Number of other files by their suffix in lower case.
        hidden_files: Number of files whose names begin with a dot.
        hidden_folders: Hidden folders and `SYSTEM_FOLDERS`, which are not searched.
        loops: Symbolic links to a folder that contains them, which are not followed.
    """

    paths: list[str]
    others: collections.Counter[str]
    hidden_files: int
    hidden_folders: list[str]
    loops: list[str]

    def left_out(self) -> str:
        """Describes the files and folders that were left out; an empty string if none was."""
        parts = [
            (len(self.hidden_folders), f"hidden or system folders ({_some(self.hidden_folders)})"),
            (self.hidden_files, "hidden files"),
            (len(self.loops), f"links to a folder that contains them ({_some(self.loops)})"),
        ]
        return ", ".join(f"{count} {what}" for count, what in parts if count)


def list_images(folder: str) -> Listing:
    """Lists all image files below a folder, selected by suffix.

    Symbolic links are followed.

    Raises:
        UsageError: The folder or a folder below it cannot be read.
    """
    listing = Listing([], collections.Counter(), 0, [], [])
    readable, hidden_files = rgb.suffixes(), 0
    for entry in _files(folder, frozenset(), listing):
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            hidden_files += 1
        elif suffix in readable:
            listing.paths.append(entry.path)
        else:
            listing.others[suffix] += 1
    listing.paths.sort()
    return listing._replace(hidden_files=hidden_files)


def _files(
    folder: str, parents: frozenset[tuple[int, int]], listing: Listing
) -> Iterator[os.DirEntry[str]]:
    """Yields the files; `parents` are device and inode of each folder on the way to this one."""
    try:
        stat = os.stat(folder)
        with os.scandir(folder) as entries:
            folders: list[os.DirEntry[str]] = []
            files: list[os.DirEntry[str]] = []
            for entry in entries:
                (folders if _is_folder(entry) else files).append(entry)
    except OSError as error:
        raise UsageError(
            f"The folder {folder} cannot be read ({error.strerror}); make it readable, or move it "
            "elsewhere."
        ) from error
    here = (stat.st_dev, stat.st_ino)
    if here in parents:
        listing.loops.append(folder)
        return
    yield from files
    for entry in folders:
        if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
            listing.hidden_folders.append(entry.path)
        else:
            yield from _files(entry.path, parents | {here}, listing)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself. Reading it as a file reports it.
        return False


def _some(names: list[str]) -> str:
    return ", ".join(
        [*sorted(names)[:_MAX_NAMED_FOLDERS], *["..."][: len(names) > _MAX_NAMED_FOLDERS]]
    )
