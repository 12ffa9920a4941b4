"""Where pictures come from: `folder:PATH`, `flist:FILE`, `tfds:NAME` or `tfds:NAME:SPLIT`."""

import os
from typing import Protocol

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from deepfill_jax.data import examples, files
from deepfill_jax.errors import UsageError

# Encoded pictures in memory, up to 2 GB for CelebA-HQ at 1024 px. TFDS has shuffled the files.
SHUFFLE_BUFFER = 1024


class Source(Protocol):
    """Pictures that can be counted, streamed and decoded.

    The streams carry small items (a file's number, an encoded picture) rather than pictures, so
    that a process can pass over the elements of the others without decoding them.
    """

    name: str  # The specification, for messages.

    def __len__(self) -> int: ...

    def identity(self) -> str:
        """Of two sources with the same identity, item i is the same picture."""

    def in_order(self) -> tf.data.Dataset:
        """Every item once, in source order."""

    def shuffled(self, seed: int, start: int) -> tf.data.Dataset:
        """Items from element `start` of the endless stream on, each once an epoch."""

    def encoded(self, item: np.int64 | bytes) -> examples.Encoded:
        """What `examples.load` reads of an item."""

    def picture(self, item: np.int64 | bytes) -> np.ndarray:
        """Loads an item as `examples.load` does; says what to do, or replaces it, if that fails."""


def open_source(spec: str, edges: str = "") -> Source:
    """Opens pictures for training or evaluation; nothing is ever downloaded.

    Args:
        spec: `folder:PATH`, all pictures below a folder; `flist:FILE`, a text file of one path a
            line; `tfds:NAME` or `tfds:NAME:SPLIT`, a prepared TensorFlow data set with a feature
            "image", of split "train" unless said otherwise (`train[:1000]` works too).
        edges: `folder:PATH`, where data/edges.py wrote the edge maps of these files; "" for none.

    Raises:
        UsageError: A specification has another form, or what it names is missing or unusable.
    """
    hide_gpus()
    kind, _, place = spec.partition(":")
    edge_kind, _, edge_folder = edges.partition(":")
    if edges and (edge_kind != "folder" or not edge_folder or kind == "tfds"):
        raise UsageError(
            f"Edge maps {edges!r} of {spec} cannot be used: they are folder:PATH, and belong to "
            "picture files, not to TFDS."
        )
    if kind in ("folder", "flist") and place:
        opener = {"folder": files.from_folder, "flist": files.from_list}[kind]
        found = opener(spec, os.path.expanduser(place))
        return found.with_edges(os.path.expanduser(edge_folder)) if edges else found
    if kind == "tfds" and place:
        name, _, split = place.partition(":")
        return TfdsSplit(spec, name, split or "train")
    raise UsageError(
        f"The data source {spec!r} has none of the forms folder:PATH, flist:FILE, tfds:NAME and "
        "tfds:NAME:SPLIT."
    )


def hide_gpus() -> None:
    """Keeps TensorFlow off the GPUs, which pictures do not need: it would take all their memory."""
    tf.config.set_visible_devices([], "GPU")


class TfdsSplit:
    """A split of a prepared TFDS data set, read in sequence; an item is an encoded picture.

    Attributes:
        name: The specification it came from.
    """

    def __init__(self, name: str, dataset: str, split: str):
        self.name = name
        try:
            builder = tfds.builder(dataset)
        except (ValueError, AssertionError) as error:  # No such data set; no such version.
            raise UsageError(f"{name}: {str(error).splitlines()[0]}") from error
        if "image" not in builder.info.features:
            features = ", ".join(sorted(builder.info.features))
            raise UsageError(f"{name}: the data set has no feature image, only {features}.")
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
        """Name, version and size, as TFDS prepares the same everywhere."""
        return self._identity

    def in_order(self) -> tf.data.Dataset:
        """Every item once, in the order of the prepared files."""
        return self._encoded

    def shuffled(self, seed: int, start: int) -> tf.data.Dataset:
        """Items from element `start` of the endless stream on.

        The elements before `start` are read again and thrown away, undecoded. A window of
        `SHUFFLE_BUFFER` items is shuffled, so an epoch is no uniform permutation.
        """
        shuffle = self._encoded.shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=True)
        return shuffle.repeat().skip(start)

    def encoded(self, item: bytes) -> bytes:
        """An item is its encoded picture."""
        return item

    def picture(self, item: bytes) -> np.ndarray:
        """Decodes an item to uint8 [H, W, 3].

        Raises:
            UsageError: The item is no picture.
        """
        try:
            return examples.decode(item)
        except examples.UnreadablePicture as error:
            raise UsageError(
                f"{self.name}: a picture cannot be decoded; prepare the data set again ({error})."
            ) from error


def _how_to_prepare(name: str, dataset: str, builder: tfds.core.DatasetBuilder) -> str:
    """One sentence on what to run, and on the files to fetch by hand first."""
    by_hand = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    first = f", with a --manual_dir for what it cannot download ({by_hand})" if by_hand else ""
    return (
        f"{name}: the data set is not prepared in {builder.data_dir_root} (TFDS_DATA_DIR names "
        f"another place); run `tfds build {dataset}` once{first}."
    )
