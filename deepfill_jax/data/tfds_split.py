"""A split of a prepared TFDS data set as a source, with random access to its images."""

import concurrent.futures
import logging
import os
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters
from tensorflow_datasets.core.utils import shard_utils

from deepfill_jax import distributed
from deepfill_jax.data import records
from deepfill_jax.data.array_cache import CachedArray
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import rgb

logger = logging.getLogger(__name__)

_INDEX_THREADS = 16  # More threads than cores, because reading an index mostly waits for the disk.


class TfdsSplit:
    """A split of a prepared TFDS data set, of TFRecord or ArrayRecord files.

    Attributes:
        name: The source specification.
    """

    def __init__(self, name: str, dataset: str, split: str):
        """Opens the split.

        The records of a TFRecord file have no index, so the first start reads the length of each
        record in process 0. It is kept in the user's cache folder, by path, size and time.

        Raises:
            UsageError: The data set, its split or its files cannot be used.
        """
        self.name = name
        builder = _builder(name, dataset)
        try:
            self._files = builder.info.splits[split].file_instructions
        except (ValueError, KeyError) as error:
            raise UsageError(f"{name}: {str(error.args[0]).splitlines()[0]}") from error
        _check_files(name, self._files)
        self._ends = np.cumsum([file.take for file in self._files])
        self._identity = f"{builder.info.full_name} {split} {len(self)}"
        self._lengths = None
        if builder.info.file_format == file_adapters.FileFormat.TFRECORD:
            self._lengths = _record_lengths(name, self._files)
            self._offsets = [records.offsets(lengths) for lengths in self._lengths]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def identity(self) -> str:
        """Returns name, version and size, because TFDS prepares the same files everywhere."""
        return self._identity

    def encoded(self, item: int) -> records.Record:
        """Returns the place of a record, which a worker reads."""
        number = int(np.searchsorted(self._ends, item, side="right"))
        file = self._files[number]
        row = file.skip + int(item - self._ends[number] + file.take)
        if self._lengths is None:
            return records.ArrayRecord(file.filename, row)
        place = int(self._offsets[number][row]), int(self._lengths[number][row])
        return records.TfRecord(file.filename, *place)

    def size(self, item: int) -> tuple[int, int]:
        """Reads width and height of an image; raises UsageError if it cannot be read."""
        return rgb.read_size(self._content(item))

    def picture(self, item: int) -> np.ndarray:
        """Decodes an item to uint8 [H, W, 3].

        Raises:
            UsageError: The item cannot be decoded.
        """
        try:
            return rgb.decode(self._content(item))
        except rgb.TransparentImageError as error:
            raise UsageError(f"{self.name}: an image cannot be used: {error}.") from error
        except rgb.UnreadableImageError as error:
            raise self._unreadable(error) from error

    def _content(self, item: int) -> bytes:
        try:
            return records.image(self.encoded(item).read())
        except (OSError, rgb.UnreadableImageError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UsageError:
        return UsageError(
            f"{self.name}: an image cannot be decoded; prepare the data set again ({error})."
        )


def _builder(name: str, dataset: str) -> tfds.core.DatasetBuilder:
    """Opens a prepared data set.

    Raises:
        UsageError: It does not exist, is not prepared, or has no images in a readable format.
    """
    try:
        builder = tfds.builder(dataset)
    except (ValueError, AssertionError) as error:  # Unknown data set; unknown version.
        raise UsageError(f"{name}: {str(error).splitlines()[0]}") from error
    if "image" not in builder.info.features:
        features = ", ".join(sorted(builder.info.features))
        raise UsageError(
            f"{name}: the data set has no feature image, only {features}; choose an image data set."
        )
    if "://" in str(builder.data_dir):
        raise UsageError(
            f"{name}: the data set is in {builder.data_dir}; mount the bucket as a folder, for "
            "example with gcsfuse, and name the folder in TFDS_DATA_DIR."
        )
    if not os.path.isdir(builder.data_dir):
        raise UsageError(_how_to_prepare(name, dataset, builder))
    formats = {file_adapters.FileFormat.TFRECORD, file_adapters.FileFormat.ARRAY_RECORD}
    if builder.info.file_format not in formats:
        raise UsageError(
            f"{name}: the data set is prepared as {builder.info.file_format.value}; prepare it "
            "again with --file_format=array_record or tfrecord."
        )
    return builder


def _how_to_prepare(name: str, dataset: str, builder: tfds.core.DatasetBuilder) -> str:
    """Returns a sentence with the command to run and the files to download manually first."""
    by_hand = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    first = (
        f", with a --manual_dir of the files that must be downloaded by hand ({by_hand})"
        if by_hand
        else ""
    )
    return (
        f"{name}: the data set is not prepared in {builder.data_dir_root} (TFDS_DATA_DIR sets the "
        f"folder); run `tfds build {dataset}` once{first}."
    )


def _check_files(name: str, files: Sequence[shard_utils.FileInstruction]) -> None:
    missing = [file.filename for file in files if not os.path.isfile(file.filename)]
    if missing:
        raise UsageError(
            f"{name}: {len(missing)} of {len(files)} files are missing, such as {missing[0]}; "
            "prepare the data set again."
        )
    if not files:
        raise UsageError(f"{name}: this split contains no images; choose another.")


def _record_lengths(name: str, files: Sequence[shard_utils.FileInstruction]) -> list[np.ndarray]:
    """Returns the number of bytes of each record of each file, see `_known_lengths`.

    Raises:
        UsageError: A file is damaged.
    """
    counts = [file.examples_in_shard for file in files]
    lengths = np.frombuffer(
        distributed.from_process_0(lambda: _known_lengths(name, files).tobytes()), np.int64
    )
    return np.split(lengths, np.cumsum(counts)[:-1])


def _known_lengths(name: str, files: Sequence[shard_utils.FileInstruction]) -> np.ndarray:
    """Reads the lengths of all records from the cache, or from the files and caches them."""
    stats = [(file.filename, os.stat(file.filename)) for file in files]
    key = [f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats]
    cache = CachedArray("tfrecord_lengths", *key)
    lengths = cache.load(np.dtype(np.int64))
    if lengths is None or len(lengths) != sum(file.examples_in_shard for file in files):
        logger.info("%s: reading the lengths of the records of %d files.", name, len(files))
        with concurrent.futures.ThreadPoolExecutor(_INDEX_THREADS) as pool:
            parts = list(pool.map(lambda file: _read_lengths(name, file), files))
        lengths = np.concatenate(parts)
        cache.save(lengths)
    return lengths


def _read_lengths(name: str, file: shard_utils.FileInstruction) -> np.ndarray:
    try:
        return records.lengths(file.filename, file.examples_in_shard)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{name}: {file.filename} cannot be used ({error}); prepare the data set again."
        ) from error
