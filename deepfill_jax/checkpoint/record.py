"""The record of saved checkpoints, `workdir/saved.json`: the files of each, and the newest step.

The record is stored outside the checkpoints. It therefore proves that a checkpoint has lost a file,
or that a run whose checkpoints have vanished was past step 0.
"""

import json
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.checkpoint.faults import CorruptCheckpointError

logger = logging.getLogger(__name__)

FILE = "saved.json"
METADATA = "_CHECKPOINT_METADATA"  # Name of a checkpoint's metadata file.
UNFINISHED = ".orbax-checkpoint-tmp"  # Part of the name of a folder that Orbax is still writing.
# Orbax writes these files after the record has listed the others. The metadata contains its own
# checksums.
LATE = ("commit_success.txt", METADATA)
CHUNK = 1 << 22  # Bytes read at a time.
CORRUPT = "corrupt"  # Folder next to `checkpoints` to which corrupt checkpoints are moved.
CORRUPT_BEFORE = "damaged"  # Name of that folder in earlier versions.


class Record:
    """Reads and writes the record of a run."""

    def __init__(self, checkpoints: Path):
        """Opens the record.

        Args:
            checkpoints: The folder of the checkpoints.
        """
        self._checkpoints = checkpoints
        self._path = checkpoints.with_name(FILE)

    def add_unfinished(self) -> None:
        """Adds the files of the checkpoint that Orbax is about to finish."""
        record = self._read()
        kept = {name: files for name, files in record["files"].items() if self._has(name)}
        for folder in self._checkpoints.glob(f"*{UNFINISHED}*"):
            kept[folder.name.partition(UNFINISHED)[0]] = _inventory(folder)
        self._write(record | {"files": kept})

    def commit(self, step: int) -> None:
        """Records that the checkpoint of a step is complete."""
        record = self._read()
        if record["newest_step"] < step:
            self._write(record | {"newest_step": step})

    def newest_step(self) -> int:
        """Returns the highest step at which a checkpoint was saved; 0 if there was none."""
        return self._read()["newest_step"]

    def corrupt(self) -> list[str]:
        """Returns the folders of the checkpoints that were moved because they are corrupt."""
        names = CORRUPT, CORRUPT_BEFORE
        found = (self._path.with_name(name).glob("[0-9]*") for name in names)
        return [str(path) for paths in found for path in sorted(paths)]

    def place_for_corrupt(self, step: int) -> Path:
        """Returns a new path for a corrupt checkpoint: STEP, STEP.1, and so on."""
        folder = self._path.with_name(CORRUPT)
        place, count = folder / str(step), 0
        while place.exists():
            count += 1
            place = folder / f"{step}.{count}"
        return place

    def verify(self, step: int) -> None:
        """Compares a checkpoint's files with the record, if the record lists them.

        Raises:
            CorruptCheckpointError: A file is missing or differs.
            OSError: A file cannot be read.
        """
        folder = self._checkpoints / str(step)
        files = self._read()["files"].get(str(step), {})
        if files and not (folder / METADATA).exists():
            raise CorruptCheckpointError(f"{METADATA} is missing")
        for name, (size, checksum) in files.items():
            path = folder / name
            try:
                found = path.stat().st_size
            except (FileNotFoundError, NotADirectoryError) as error:
                raise CorruptCheckpointError(f"{name} is missing") from error
            if not path.is_file() or found != size or _checksum(path) != checksum:
                raise CorruptCheckpointError(f"{name} has changed since it was saved")

    def _has(self, name: str) -> bool:
        return (self._checkpoints / name).is_dir()

    def _read(self) -> dict[str, Any]:
        nothing: dict[str, Any] = {"newest_step": 0, "files": {}}
        try:
            return nothing | json.loads(self._path.read_text())
        except FileNotFoundError:  # A run of an earlier version, or a new one.
            return nothing
        except ValueError as error:
            logger.error("%s is corrupt (%s) and not used.", self._path, error)
            return nothing

    def _write(self, record: Mapping[str, Any]) -> None:
        with atomic_write(self._path) as unfinished, unfinished.open("w") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())  # A loss of power must not leave an empty file.


def _inventory(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns the size in bytes and the CRC-32 of each file, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, _checksum(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in LATE
    }


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
