"""Picture files as a source: a folder or a list of paths, checked once, then read at random.

An item of this source is the number of a file, int64.
"""

import collections
import concurrent.futures
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from deepfill_jax.data import examples
from deepfill_jax.errors import UsageError

MAX_REPLACEMENTS = 100  # So many unreadable files in a row are no bad files, but a lost disk.
_CHECK_THREADS = 16  # More than cores: on network disks a check mostly waits.
_FILES_PER_CHECK = 256
_NAMED = 10  # Files that a warning names.


class Files:
    """Readable picture files, with random access.

    Attributes:
        name: The specification they came from.
        paths: The files, in source order.
        root: The folder that they were looked for in, or that of their list.
        left_out: Files that were found there and cannot be read.
        edges: The file of each picture's edge map, which is its fourth channel; or None.
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
        self._reported = set()

    def edge_paths(self, folder: str) -> list[str]:
        """Where the edge maps lie in a folder: as the pictures in `root`, but PNG.

        Raises:
            UsageError: A picture is not in `root`, or two would share a map.
        """
        places = [os.path.splitext(os.path.relpath(path, self.root))[0] for path in self.paths]
        for place, count in collections.Counter(places).items():
            if place.startswith(os.pardir) or count > 1:
                problem = "is named twice" if count > 1 else f"lies outside {self.root}"
                raise UsageError(
                    f"{self.name}: {place} {problem}, so no edge map can be named after it; move "
                    "or rename the picture."
                )
        return [os.path.join(folder, f"{place}.png") for place in places]

    def with_edges(self, folder: str) -> "Files":
        """The same pictures with the edge maps in a folder, see `edge_paths`.

        Raises:
            UsageError: Some are missing.
        """
        edges = self.edge_paths(folder)
        missing = [path for path in edges if not os.path.isfile(path)]
        if missing:
            raise UsageError(
                f"{self.name}: {len(missing)} of {len(edges)} pictures have no edge map, such as "
                f"{missing[0]}; run `python -m deepfill_jax.data.edges --source {self.name} "
                f"--output {folder}`."
            )
        return Files(self.name, self.paths, self.root, self.left_out, edges)

    def __len__(self) -> int:
        return len(self.paths)

    def identity(self) -> str:
        """The paths without what all begin with, such as a folder that is elsewhere for others."""
        common = len(os.path.commonprefix(self.paths))
        return "\n".join(path[common:] for path in self.paths)

    def in_order(self) -> tf.data.Dataset:
        """Every item once, in source order."""
        return tf.data.Dataset.range(len(self))

    def shuffled(self, seed: int, start: int) -> tf.data.Dataset:
        """Items from element `start` of the endless stream on; starting anywhere costs nothing.

        Each epoch is a permutation of the files: element i is the file at place i % n of the
        permutation of [seed, i // n].
        """
        count = len(self)

        def order(epoch: np.int64) -> np.ndarray:
            permutation = examples.generator(seed, epoch, examples.ORDER).permutation(count)
            return permutation[max(start - epoch * count, 0) :]

        def items(epoch: tf.Tensor) -> tf.data.Dataset:
            numbers = tf.numpy_function(order, [epoch], tf.int64)
            return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(numbers, [None]))

        return tf.data.Dataset.range(start // count, tf.int64.max).flat_map(items)

    def encoded(self, item: np.int64) -> examples.Encoded:
        """The path of a file, or with that of its edge map."""
        return self.paths[item] if self.edges is None else (self.paths[item], self.edges[item])

    def picture(self, item: np.int64) -> np.ndarray:
        """Decodes a file to uint8 [H, W, C]; one that has become unreadable is reported once.

        The next readable file in source order takes its place.

        Raises:
            UsageError: Nor could any of the files after it be read.
        """
        for offset in range(min(MAX_REPLACEMENTS, len(self))):
            chosen = (item + offset) % len(self)
            path = self.paths[chosen]
            try:
                return examples.load(self.encoded(chosen))
            except (OSError, examples.UnreadablePicture) as error:
                if path not in self._reported:
                    self._reported.add(path)
                    logging.warning(
                        "%s has become unreadable; the next file replaces it: %s", path, error
                    )
        raise UsageError(
            f"{self.name}: neither {self.paths[item]} nor the files after it can be read any more; "
            "see whether the disk is still there."
        )


def from_folder(name: str, folder: str) -> Files:
    """All pictures below a folder, by suffix, sorted by relative path; links are followed.

    Raises:
        UsageError: There is no such folder, or no readable picture in it.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"{name}: there is no folder {folder}; name one that holds pictures.")
    readable = {
        suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN
    }
    found = [
        os.path.join(parent, file)
        for parent, _, files in os.walk(folder, followlinks=True)
        for file in files
    ]
    paths = sorted(path for path in found if os.path.splitext(path)[1].lower() in readable)
    if len(found) > len(paths):
        logging.info("%s: ignored %d files that are no pictures.", name, len(found) - len(paths))
    return _checked(name, paths, folder)


def from_list(name: str, path: str) -> Files:
    """The pictures that a text file lists, one path a line, in this order.

    Relative paths start at the folder of the list. Empty lines and lines with # are comments.

    Raises:
        UsageError: The list cannot be read, or none of its files can.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{name}: the list {path} cannot be read ({error}); name a text of one path a line."
        ) from error
    folder = os.path.dirname(path)
    paths = [os.path.join(folder, line) for line in lines if line and not line.startswith("#")]
    return _checked(name, paths, folder)


def _checked(name: str, paths: Sequence[str], root: str) -> Files:
    """Leaves out the files that cannot be read, and says which.

    Raises:
        UsageError: None can be read.
    """
    logging.info("%s: checking %d pictures.", name, len(paths))
    parts = [paths[i : i + _FILES_PER_CHECK] for i in range(0, len(paths), _FILES_PER_CHECK)]
    with concurrent.futures.ThreadPoolExecutor(_CHECK_THREADS) as pool:
        bad = [path for unreadable in pool.map(_unreadable, parts) for path in unreadable]
    if len(bad) == len(paths):
        raise UsageError(
            f"{name}: none of its {len(paths)} picture files can be read; name a place that holds "
            "pictures in a format that Pillow reads."
        )
    if bad:
        logging.warning(
            "%s: left out %d of %d pictures that cannot be read: %s%s",
            name,
            len(bad),
            len(paths),
            ", ".join(bad[:_NAMED]),
            ", ..." if len(bad) > _NAMED else "",
        )
    left_out = set(bad)
    return Files(name, [path for path in paths if path not in left_out], root, left_out=bad)


def _unreadable(paths: Sequence[str]) -> list[str]:
    """Those of the files that do not decode to the end."""
    bad = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                # An eighth of the size where the format can (JPEG): all bytes are still read.
                picture.draft(None, (1, 1))
                picture.load()
        except Exception:  # See examples.decode.
            bad.append(path)
    return bad
