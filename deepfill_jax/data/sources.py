"""Data sources: `folder:PATH`, `flist:FILE`, `tfds:NAME` or `tfds:NAME:SPLIT`."""

import os
from typing import Protocol

import numpy as np
import tensorflow as tf

from deepfill_jax.data import examples, files
from deepfill_jax.errors import UsageError
from deepfill_jax.local_paths import require_local


class Source(Protocol):
    """A set of images with random access; an item is the index of an image, from 0.

    The streams carry items instead of decoded images, so that a process reads no image of the
    others.
    """

    name: str  # The specification, for messages.

    def __len__(self) -> int: ...

    def identity(self) -> str:
        """In two sources with the same identity, item i is the same image."""

    def encoded(self, item: int) -> examples.Encoded:
        """Returns the input of `examples.load` for an item."""

    def size(self, item: int) -> tuple[int, int]:
        """Reads width and height of an image; raises UsageError if it cannot be read."""

    def picture(self, item: int) -> np.ndarray:
        """Decodes an item as `examples.load` does; replaces it or raises UsageError on failure."""


def open_source(spec: str, edges: str = "", *, keep_places: bool = False) -> Source:
    """Opens images for training or evaluation; nothing is ever downloaded.

    Args:
        spec: `folder:PATH` for all images below a folder; `flist:FILE` for a text file with one
            path per line; `tfds:NAME` or `tfds:NAME:SPLIT` for a prepared TensorFlow data set with
            a feature "image". The default split is "train"; slices such as `train[:1000]` work too.
        edges: `folder:PATH`, the edge maps of these files written by data/edges.py; "" for none.
        keep_places: See `files.from_folder`.

    Raises:
        UsageError: A specification has another form, or its source is missing or unusable.
    """
    hide_gpus()
    kind, _, place = spec.partition(":")
    edge_kind, _, edge_folder = edges.partition(":")
    if edges and (edge_kind != "folder" or not edge_folder or kind == "tfds"):
        raise UsageError(
            f"Edge maps {edges!r} of {spec} cannot be used: they must be folder:PATH, and the "
            "source must consist of image files, not TFDS."
        )
    if kind in ("folder", "flist") and place:
        for path in (place, edge_folder):
            require_local(kind, path)
        opener = {"folder": files.from_folder, "flist": files.from_list}[kind]
        image_files = opener(spec, os.path.expanduser(place), keep_places=keep_places)
        return image_files.with_edges(os.path.expanduser(edge_folder)) if edges else image_files
    if kind == "tfds" and place:
        from deepfill_jax.data.tfds_split import TfdsSplit  # Imported here, because it takes long.

        name, _, split = place.partition(":")
        return TfdsSplit(spec, name, split or "train")
    raise UsageError(
        f"The data source {spec!r} has none of the forms folder:PATH, flist:FILE, tfds:NAME and "
        "tfds:NAME:SPLIT."
    )


def hide_gpus() -> None:
    """Hides the GPUs from TensorFlow, which would otherwise reserve all of their memory."""
    tf.config.set_visible_devices([], "GPU")


def sizes(source: Source, count: int) -> np.ndarray:
    """Reads widths and heights of up to `count` evenly spaced images, int [N, 2].

    Raises:
        UsageError: An image cannot be read.
    """
    items = np.linspace(0, len(source) - 1, min(len(source), count)).astype(int)
    return np.array([source.size(item) for item in items.tolist()])


def whole_share(image_sizes: np.ndarray, crop_size: int) -> float:
    """Returns the share of images, of sizes int [N, 2], of which a crop takes the whole."""
    return float(np.mean(image_sizes.max(axis=1) <= crop_size))
