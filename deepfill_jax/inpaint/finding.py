"""Finds the image files of a folder by suffix or content, and counts the other files."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deepfill_jax.errors import UsageError, printable
from deepfill_jax.pictures import READABLE, format_of

RECORDS_FOLDER = ".deepfill_jax"  # In a folder of results, see `records`; it is not counted.


@dataclass
class Found:
    """The files that a search found.

    Attributes:
        files: Image files, sorted.
        others: Number of other files by their suffix in lower case, or by "hidden", "special" or
            "without suffix".
        folders: Number of folders that were not searched.
    """

    files: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    folders: int = 0

    def passed_over(self) -> str:
        """Returns a line that counts the files passed over by suffix; empty if there are none."""
        kinds = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
        parts = [", ".join(f"{count} {printable(kind)}" for kind, count in kinds)] * bool(kinds)
        if self.folders:
            noun = "folder" if self.folders == 1 else "folders"
            parts.append(f"{self.folders} {noun} not searched (--recursive)")
        return f"passed over: {'; '.join(parts)}" if parts else ""


def find(path: Path, *, recursive: bool = False, skip: Iterable[Path | None] = ()) -> Found:
    """Finds the image file at a path, or the image files in a folder.

    A file with the suffix of an image format always counts as an image file, so that damaged files
    are reported when they are read. Any other file counts if its content is an image.

    Args:
        path: A file or a folder.
        recursive: Whether subfolders are searched too.
        skip: Folders that are neither searched nor counted, such as the folder of the results.

    Raises:
        UsageError: There are no image files.
    """
    if path.is_file():
        return Found([path])
    found = Found()
    if path.is_dir():
        known = {folder.resolve() for folder in skip if folder is not None and folder.is_dir()}
        found.files = sorted(_search(path, recursive, known - {path.resolve()}, found))
    if not found.files:
        because = found.passed_over()
        raise UsageError(
            f"{path} is neither an image file nor a folder of image files"
            + (f" ({because})." if because else ".")
        )
    return found


def _search(folder: Path, recursive: bool, known: set[Path], found: Found) -> Iterator[Path]:
    """Yields a folder's image files and counts its other files; skips the folders in `known`."""
    known.add(folder.resolve())
    for path in folder.iterdir():
        if path.name == RECORDS_FOLDER:
            continue
        if path.name.startswith("."):
            found.others["hidden"] += 1
        elif path.is_dir():
            if path.resolve() in known:  # The folder of the results, or a link to a parent.
                continue
            if recursive:
                yield from _search(path, recursive, known, found)
            else:
                found.folders += 1
        elif path.exists() and not path.is_file():  # Reading a pipe would block.
            found.others["special"] += 1
        elif path.suffix.lower() in READABLE or _holds_image(path):
            yield path
        else:
            found.others[path.suffix.lower() or "without suffix"] += 1


def _holds_image(path: Path) -> bool:
    try:
        return format_of(path) is not None
    except OSError:
        return False
