"""Data sources: `folder:PATH`, `flist:FILE`, `tfds:NAME` or `tfds:NAME:SPLIT`."""

import os
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from deepfill_jax.data import examples, files
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import rgb

# Number of encoded images in memory, up to 2 GB for CelebA-HQ at 1024 px. A small buffer suffices,
# because TFDS shuffles the examples when it prepares the files.
SHUFFLE_BUFFER = 1024


class Source(Protocol):
    """A set of images that can be counted, streamed and decoded.

    The streams carry small items (the index of a file, or an encoded image) instead of decoded
    images, so that a process can skip the elements of other processes without decoding them.
    """

    # An item is of the type that the own streams carry: np.int64 or bytes.
    name: str  # The specification, for messages.

    def __len__(self) -> int: ...

    def identity(self) -> str:
        """In two sources with the same identity, item i is the same image."""

    def in_order(self) -> tf.data.Dataset:
        """Streams every item once, in source order."""

    def shuffled(self, seed: int, start: int) -> tf.data.Dataset:
        """Streams items endlessly from element `start`, each once per epoch."""

    def encoded(self, item: Any) -> examples.Encoded:
        """Returns the input of `examples.load` for an item."""

    def picture(self, item: Any) -> np.ndarray:
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
        opener = {"folder": files.from_folder, "flist": files.from_list}[kind]
        image_files = opener(spec, os.path.expanduser(place), keep_places=keep_places)
        return image_files.with_edges(os.path.expanduser(edge_folder)) if edges else image_files
    if kind == "tfds" and place:
        name, _, split = place.partition(":")
        return TfdsSplit(spec, name, split or "train")
    raise UsageError(
        f"The data source {spec!r} has none of the forms folder:PATH, flist:FILE, tfds:NAME and "
        "tfds:NAME:SPLIT."
    )


def hide_gpus() -> None:
    """Hides the GPUs from TensorFlow, which would otherwise reserve all of their memory."""
    tf.config.set_visible_devices([], "GPU")


class TfdsSplit:
    """A split of a prepared TFDS data set, read in sequence; an item is an encoded image.

    Attributes:
        name: The source specification.
    """

    def __init__(self, name: str, dataset: str, split: str):
        self.name = name
        try:
            builder = tfds.builder(dataset)
        except (ValueError, AssertionError) as error:  # Unknown data set; unknown version.
            raise UsageError(f"{name}: {str(error).splitlines()[0]}") from error
        if "image" not in builder.info.features:
            features = ", ".join(sorted(builder.info.features))
            raise UsageError(
                f"{name}: the data set has no feature image, only {features}; choose an image data "
                "set."
            )
        try:
            records = builder.as_dataset(
                split=split,
                decoders={"image": tfds.decode.SkipDecoding()},
                read_config=tfds.ReadConfig(try_autocache=False),
            )
        except AssertionError as error:
            raise UsageError(_how_to_prepare(name, dataset, builder)) from error
        except ValueError as error:
            raise UsageError(f"{name}: {str(error).splitlines()[0]}") from error
        self._encoded = records.map(lambda record: record["image"])
        self._count = int(self._encoded.cardinality())
        self._identity = f"{builder.info.full_name} {split} {self._count}"

    def __len__(self) -> int:
        return self._count

    def identity(self) -> str:
        """Returns name, version and size, because TFDS prepares the same files everywhere."""
        return self._identity

    def in_order(self) -> tf.data.Dataset:
        """Streams every item once, in the order of the prepared files."""
        return self._encoded

    def shuffled(self, seed: int, start: int) -> tf.data.Dataset:
        """Streams items endlessly from element `start`.

        The elements before `start` are read and discarded without decoding. Shuffling uses a buffer
        of `SHUFFLE_BUFFER` items, so an epoch is not a uniformly random permutation.
        """
        shuffle = self._encoded.shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=True)
        return shuffle.repeat().skip(start)

    def encoded(self, item: bytes) -> bytes:
        """Returns the item itself, which is an encoded image."""
        return item

    def picture(self, item: bytes) -> np.ndarray:
        """Decodes an item to uint8 [H, W, 3].

        Raises:
            UsageError: The item cannot be decoded.
        """
        try:
            return rgb.decode(item)
        except rgb.TransparentImageError as error:
            raise UsageError(f"{self.name}: an image cannot be used: {error}.") from error
        except rgb.UnreadableImageError as error:
            raise UsageError(
                f"{self.name}: an image cannot be decoded; prepare the data set again ({error})."
            ) from error


def _how_to_prepare(name: str, dataset: str, builder: tfds.core.DatasetBuilder) -> str:
    """Returns a sentence with the command to run and the files to download manually first."""
    by_hand = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    first = f", with a --manual_dir for what it cannot download ({by_hand})" if by_hand else ""
    return (
        f"{name}: the data set is not prepared in {builder.data_dir_root} (TFDS_DATA_DIR sets the "
        f"folder); run `tfds build {dataset}` once{first}."
    )
