"""Finds the image files of a folder, by suffix or content, and counts what it passes over."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deepfill_jax.errors import UsageError, printable
from deepfill_jax.pictures import READABLE, format_of


@dataclass
class Found:
    """The files of a search.

    Attributes:
        files: Image files, sorted.
        others: Number of other files by their suffix in lower case; "hidden" and "special" too.
        folders: Number of folders that were not searched.
    """

    files: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    folders: int = 0

    def passed_over(self) -> str:
        """Says in one line what was passed over, by suffix; empty if nothing was."""
        kinds = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
        parts = [", ".join(f"{count} {printable(kind)}" for kind, count in kinds)] * bool(kinds)
        if self.folders:
            noun = "folder" if self.folders == 1 else "folders"
            parts.append(f"{self.folders} {noun} not searched (--recursive)")
        return f"passed over: {'; '.join(parts)}" if parts else ""


def find(path: Path, *, recursive: bool = False, skip: Iterable[Path | None] = ()) -> Found:
    """Finds the image file at a path, or those in a folder.

    Files of known suffixes count as image files whatever they hold, so that damaged ones are
    reported when they are read; others do if their content is an image.

    Args:
        path: A file or a folder.
        recursive: Whether the folders in it are searched too.
        skip: Folders that are neither searched nor counted, such as that of the results.

    Raises:
        UsageError: There are none.
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
            f"{path} is neither a picture nor a folder that holds pictures"
            + (f" ({because})." if because else ".")
        )
    return found


def _search(folder: Path, recursive: bool, known: set[Path], found: Found) -> Iterator[Path]:
    """Yields a folder's image files, and counts the rest; `known` holds folders to leave out."""
    known.add(folder.resolve())
    for path in folder.iterdir():
        if path.name.startswith("."):
            found.others["hidden"] += 1
        elif path.is_dir():
            if path.resolve() in known:  # Results, or a link that leads back.
                continue
            if recursive:
                yield from _search(path, recursive, known, found)
            else:
                found.folders += 1
        elif path.exists() and not path.is_file():  # A pipe would be waited for.
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
