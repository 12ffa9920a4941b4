"""Image files as a data source: a folder or a list of paths, checked once, with random access.

An item of this source is the index of a file, int64.
"""

import codecs
import collections
import concurrent.futures
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from deepfill_jax.data import examples
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import rgb

logger = logging.getLogger(__name__)

# More unreadable files mean that a disk is not mounted. Up to `_MAX_NAMED_FILES` are allowed in any
# case, because the warning names them all.
MAX_MISSING = 0.01  # Share of the files.
MAX_REPLACEMENTS = 100  # More unreadable files in a row mean that the disk is gone.
_CHECK_THREADS = 16  # More threads than cores, because on network disks a check mostly waits.
_FILES_PER_CHECK = 256
_MAX_NAMED_FILES = 10  # Number of files that a warning names.


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

    def in_order(self) -> tf.data.Dataset:
        """Streams every item once, in source order."""
        return tf.data.Dataset.range(len(self))

    def shuffled(self, seed: int, start: int) -> tf.data.Dataset:
        """Streams items endlessly from element `start`; seeking costs nothing.

        Each epoch is a permutation of the n files: element i is the file at position i % n of the
        permutation drawn with seed [seed, i // n].
        """
        count = len(self)

        def order(epoch: np.int64) -> np.ndarray:
            permutation = examples.make_rng(seed, int(epoch), examples.ORDER).permutation(count)
            return permutation[max(start - int(epoch) * count, 0) :]

        def items(epoch: tf.Tensor) -> tf.data.Dataset:
            numbers = tf.numpy_function(order, [epoch], tf.int64)
            return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(numbers, [None]))

        return tf.data.Dataset.range(start // count, tf.int64.max).flat_map(items)

    def encoded(self, item: int) -> examples.Encoded:
        """Returns the path of a file, together with the path of its edge map if it has one."""
        return self.paths[item] if self.edges is None else (self.paths[item], self.edges[item])

    def picture(self, item: int) -> np.ndarray:
        """Decodes a file to uint8 [H, W, C]; C is 4 with an edge map and 3 without.

        A file that can no longer be used is reported once and replaced by the next usable file in
        source order.

        Raises:
            UsageError: The files after it cannot be read either.
        """
        for offset in range(min(MAX_REPLACEMENTS, len(self))):
            chosen = (item + offset) % len(self)
            path = self.paths[chosen]
            try:
                return examples.load(self.encoded(chosen))
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

    Symbolic links are followed.

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
    readable = rgb.suffixes()
    all_files = [
        os.path.join(parent, file)
        for parent, _, files in os.walk(folder, followlinks=True)
        for file in files
    ]
    paths = sorted(path for path in all_files if os.path.splitext(path)[1].lower() in readable)
    found = collections.Counter(os.path.splitext(path)[1].lower() for path in all_files)
    if ignored := [f"{n} {suffix}" for suffix, n in found.items() if suffix not in readable]:
        logger.info("%s: ignored by suffix: %s.", name, ", ".join(ignored))
    return _checked(name, paths, folder, keep_places)


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

    Raises:
        UsageError: No file can be used, or more than `MAX_MISSING` cannot be read.
    """
    logger.info("%s: checking %d image files.", name, len(paths))
    parts = [paths[i : i + _FILES_PER_CHECK] for i in range(0, len(paths), _FILES_PER_CHECK)]
    with concurrent.futures.ThreadPoolExecutor(_CHECK_THREADS) as pool:
        faults = dict(fault for found in pool.map(_faults, parts) for fault in found)
    transparent = [path for path, is_transparent in faults.items() if is_transparent]
    unreadable = [path for path, is_transparent in faults.items() if not is_transparent]
    if all(path in faults for path in paths):
        verb = "has" if len(transparent) == 1 else "have"
        but = f": {len(transparent)} of them {verb} transparent pixels" if transparent else ""
        raise UsageError(
            f"{name}: none of its {len(paths)} picture files can be used{but}; give the path of "
            "opaque images in a format that Pillow reads."
        )
    if len(unreadable) > max(MAX_MISSING * len(paths), _MAX_NAMED_FILES):
        raise UsageError(
            f"{name}: {len(unreadable):,} of {len(paths):,} image files cannot be read, such as "
            f"{unreadable[0]}; check that all disks are mounted, or remove the damaged files."
        )
    _warn(name, len(paths), unreadable, "cannot be read")
    _warn(name, len(paths), transparent, "have transparent pixels (flatten them to use them)")
    dropped = set(transparent) if keep_places else faults
    return Files(name, [path for path in paths if path not in dropped], root, left_out=list(faults))


def _warn(name: str, count: int, left_out: Sequence[str], why: str) -> None:
    if left_out:
        logger.warning(
            "%s: left out %d of %d image files that %s: %s%s",
            name,
            len(left_out),
            count,
            why,
            ", ".join(left_out[:_MAX_NAMED_FILES]),
            ", ..." if len(left_out) > _MAX_NAMED_FILES else "",
        )


def _faults(paths: Sequence[str]) -> list[tuple[str, bool]]:
    """Returns the files that cannot be used, and whether they are transparent."""
    found = []
    for path in paths:
        try:
            rgb.check(path)
        except rgb.UnreadableImageError as error:
            found.append((path, isinstance(error, rgb.TransparentImageError)))
    return found
