"""Image files as a data source: a folder or a list of paths, checked once, with random access."""

import codecs
import collections
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from deepfill_jax import distributed
from deepfill_jax.data import examples, file_checks
from deepfill_jax.data.file_checks import State
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import listing, rgb

logger = logging.getLogger(__name__)

# More unreadable files mean that a disk is not mounted. Up to `_MAX_NAMED_FILES` are allowed in any
# case, because the warning names them all.
MAX_MISSING = 0.01  # Share of the files.
MAX_REPLACEMENTS = 100  # More unreadable files in a row mean that the disk is gone.
_MAX_NAMED_FILES = 10  # Number of files that a warning names.

_Read = TypeVar("_Read")


class Files:
    """Readable image files, with random access.

    Attributes:
        name: The source specification.
        paths: The files, in source order.
        root: The searched folder, or the folder of the list.
        left_out: Files that cannot be read or have transparent pixels, and are left out; or, if the
            source keeps places, are replaced when they are drawn.
        edges: The edge map file of each image, read as its fourth channel; None without edge maps.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[str],
        root: str,
        left_out: Sequence[str] = (),
        edges: Sequence[str] | None = None,
    ):
        self.name = name
        self.paths = paths
        self.root = root
        self.left_out = left_out
        self.edges = edges
        self._reported = set(left_out)

    @property
    def readable(self) -> list[str]:
        """The files that can be used, in source order."""
        left_out = set(self.left_out)
        return [path for path in self.paths if path not in left_out]

    def edge_paths(self, folder: str) -> list[str]:
        """Returns the paths of the edge maps: PNG files with the images' paths relative to `root`.

        Raises:
            UsageError: An image is not in `root`, or two images would share a map.
        """
        stems = [os.path.splitext(os.path.relpath(path, self.root))[0] for path in self.paths]
        for stem, count in collections.Counter(stems).items():
            if stem.startswith(os.pardir) or count > 1:
                problem = "occurs twice" if count > 1 else f"lies outside {self.root}"
                raise UsageError(
                    f"{self.name}: {stem} {problem}, so its edge map has no unique path; move or "
                    "rename the image."
                )
        return [os.path.join(folder, f"{stem}.png") for stem in stems]

    def with_edges(self, folder: str) -> "Files":
        """Returns the same images with the edge maps of a folder, see `edge_paths`.

        Raises:
            UsageError: Edge maps are missing.
        """
        edges = self.edge_paths(folder)
        readable = set(self.readable)
        missing = [
            path
            for image, path in zip(self.paths, edges, strict=True)
            if image in readable and not os.path.isfile(path)
        ]
        if missing:
            raise UsageError(
                f"{self.name}: {len(missing)} of {len(edges)} images have no edge map, such as "
                f"{missing[0]}; run `python -m deepfill_jax.data.edges --source {self.name} "
                f"--output {folder}`."
            )
        return Files(self.name, self.paths, self.root, self.left_out, edges)

    def __len__(self) -> int:
        return len(self.paths)

    def identity(self) -> str:
        """Returns the paths without their common prefix, which differs between machines."""
        common = len(os.path.commonprefix(self.paths))
        return "\n".join(path[common:] for path in self.paths)

    def encoded(self, item: int) -> examples.Encoded:
        """Returns the path of a file, together with the path of its edge map if it has one."""
        return self.paths[item] if self.edges is None else (self.paths[item], self.edges[item])

    def size(self, item: int) -> tuple[int, int]:
        """Reads width and height of a file, replaced like that of `picture`."""
        return self._first_usable(item, lambda chosen: rgb.read_size(self.paths[chosen]))

    def picture(self, item: int) -> np.ndarray:
        """Decodes a file to uint8 [H, W, C]; C is 4 with an edge map and 3 without.

        A file that can no longer be used is reported once and replaced by the next usable file in
        source order.

        Raises:
            UsageError: The files after it cannot be read either.
        """
        return self._first_usable(item, lambda chosen: examples.load(self.encoded(chosen)))

    def _first_usable(self, item: int, read: Callable[[int], _Read]) -> _Read:
        for offset in range(min(MAX_REPLACEMENTS, len(self))):
            chosen = (item + offset) % len(self)
            path = self.paths[chosen]
            try:
                return read(chosen)
            except (OSError, rgb.UnreadableImageError) as error:
                if path not in self._reported:
                    self._reported.add(path)
                    logger.warning(
                        "%s can no longer be used; the next file replaces it: %s", path, error
                    )
        raise UsageError(
            f"{self.name}: neither {self.paths[item]} nor the files after it can be read any more; "
            "check that the disk is still mounted."
        )


def from_folder(name: str, folder: str, *, keep_places: bool = False) -> Files:
    """Opens all image files below a folder, selected by suffix and sorted by relative path.

    Hidden folders, thumbnails and loops of symbolic links are left out and counted in the log.

    Args:
        name: The source specification, for messages.
        folder: The folder to search.
        keep_places: Whether files that cannot be read stay in the order, see `Files.picture`. Then
            the stream is the same when some cannot be read at one start and can at another.

    Raises:
        UsageError: The folder does not exist, contains no readable image, or too many files of it
            cannot be read.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"{name}: there is no folder {folder}; give the path of an image folder.")
    found = listing.list_images(folder)
    if found.others:
        ignored = ", ".join(f"{count} {suffix}" for suffix, count in found.others.items())
        logger.info("%s: ignored by suffix: %s.", name, ignored)
    if left_out := found.left_out():
        logger.info("%s: left out %s.", name, left_out)
    return _checked(name, found.paths, folder, keep_places)


def from_list(name: str, path: str, *, keep_places: bool = False) -> Files:
    """Opens the image files that a text file lists, one path per line, in its order.

    Paths may be relative to the folder of the list. Empty lines and lines that begin with # are
    ignored.

    Args:
        name: The source specification, for messages.
        path: The text file.
        keep_places: See `from_folder`.

    Raises:
        UsageError: The list, or too many of its files, cannot be read.
    """
    try:
        # Names are bytes, which need not be UTF-8 and may hold what else would end a line.
        text = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UsageError(
            f"{name}: the list {path} cannot be read ({error}); it must be a text file with one "
            "path per line."
        ) from error
    if b"\0" in text:  # UTF-16, or not a text.
        raise UsageError(
            f"{name}: the list {path} cannot be read (it holds null bytes); it must be a text file "
            "with one path per line."
        )
    lines = [os.fsdecode(line.strip()) for line in text.split(b"\n")]
    folder = os.path.dirname(path)
    paths = [os.path.join(folder, line) for line in lines if line and not line.startswith("#")]
    return _checked(name, paths, folder, keep_places)


def _checked(name: str, paths: Sequence[str], root: str, keep_places: bool) -> Files:
    """Leaves out the files that cannot be used, with warnings that name them.

    In a run of several processes, one of them checks the files. The others list them too, because
    the path of the folder may differ between machines.

    Raises:
        UsageError: No file can be used, more than `MAX_MISSING` cannot be read, or the processes
            list different files.
    """
    if jax.distributed.is_initialized():
        listed = Files(name, paths, root).identity()
        distributed.assert_same_on_all_processes(f"The list of files of {name}", listed)
    states = np.frombuffer(
        distributed.from_process_0(lambda: file_checks.check(name, paths, root).tobytes()), np.uint8
    )
    usable = states == State.USABLE
    transparent = [paths[i] for i in np.flatnonzero(states == State.TRANSPARENT).tolist()]
    is_unreadable = ~usable & (states != State.TRANSPARENT)
    unreadable = [paths[i] for i in np.flatnonzero(is_unreadable).tolist()]
    if not usable.any():
        verb = "has" if len(transparent) == 1 else "have"
        but = f": {len(transparent)} of them {verb} transparent pixels" if transparent else ""
        raise UsageError(
            f"{name}: {len(paths)} image files were found, but none can be used{but}; give the "
            "path of opaque images in a format that Pillow reads."
        )
    if len(unreadable) > max(MAX_MISSING * len(paths), _MAX_NAMED_FILES):
        raise UsageError(
            f"{name}: {len(unreadable):,} of {len(paths):,} image files cannot be read, such as "
            f"{unreadable[0]}; check that all disks are mounted, or remove the damaged files."
        )
    _warn(name, len(paths), unreadable, "cannot be read")
    _warn(name, len(paths), transparent, "have transparent pixels (flatten them to use them)")
    kept = states != State.TRANSPARENT if keep_places else usable
    left_out = [path for path, is_usable in zip(paths, usable, strict=True) if not is_usable]
    chosen = [path for path, is_kept in zip(paths, kept, strict=True) if is_kept]
    return Files(name, chosen, root, left_out)


def _warn(name: str, count: int, left_out: Sequence[str], why: str) -> None:
    if left_out:
        more = ["..."] if len(left_out) > _MAX_NAMED_FILES else []
        paths = ", ".join([*left_out[:_MAX_NAMED_FILES], *more])
        form = "%s: left out %d of %d image files that %s: %s"
        logger.warning(form, name, len(left_out), count, why, paths)
