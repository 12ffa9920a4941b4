"""Records of how the results in a folder were made, so that a rerun redoes those made otherwise.

The record of `out/a.png` is a JSON file in the hidden folder `out/.deepfill_jax`: the names, sizes
and modification times of the input and model files, and the options that change the result. It
holds no pixels.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepfill_jax import pictures
from deepfill_jax.atomic_write import atomic_write, is_current
from deepfill_jax.inpaint.finding import RECORDS_FOLDER
from deepfill_jax.inpaint.plan import Failure, Job
from deepfill_jax.pictures import Picture

OPTIONS = (
    *("strategy", "budget", "detail", "seamless", "working_size", "dilate", "feather"),
    *("mask_threshold", "invert_mask", "resize_mask", "mask_orientation"),
)


class Records:
    """Decides which results are up to date, and records the new ones.

    Attributes:
        changed: Names of the options and inputs whose change makes existing results outdated.
        outdated: Number of results with such a record.
        unrecorded: Number of existing results that have no record and are not older than their
            inputs.
    """

    def __init__(
        self,
        planned: Sequence[Job | Failure],
        options: argparse.Namespace,
        model_files: Sequence[Path],
        *,
        is_file: bool,
    ) -> None:
        """Reads the names, sizes and times of all inputs, before the first of them is decoded.

        Args:
            planned: Jobs and failures.
            options: The arguments of the command.
            model_files: The files of the model.
            is_file: Whether the result is a single file, which is overwritten and not recorded.
        """
        self.changed: set[str] = set()
        self.outdated = self.unrecorded = 0
        self._model_files, self._is_file = model_files, is_file
        common = {name: getattr(options, name) for name in OPTIONS}
        common["model"] = [Path(options.model).name, *map(_stamp, model_files)]
        self._made: dict[Path, dict[str, Any]] = {
            item.result: common
            | {name: _stamp(getattr(item, name)) for name in ("image", "mask", "sketch")}
            for item in planned
            if isinstance(item, Job)
        }

    def remaining(self, planned: Sequence[Job | Failure]) -> list[Job | Failure]:
        """Removes the jobs whose result exists and would be made in the same way again.

        Results without a record are kept if they are not older than their inputs: they may be those
        of an older version, or of an interrupted run, or files of other programs.
        """
        return [item for item in planned if isinstance(item, Failure) or not self._is_kept(item)]

    def write(self, result: Path, pixels: np.ndarray, picture: Picture) -> None:
        """Writes a result, see `pictures.write`, and then its record."""
        record = _path(result)
        record.unlink(missing_ok=True)  # It does not describe the new result.
        pictures.write(result, pixels, picture)
        if not self._is_file:
            with atomic_write(record) as unfinished:
                unfinished.write_text(json.dumps({"result": result.name} | self._made[result]))

    def _is_kept(self, job: Job) -> bool:
        if not job.result.exists():
            return False
        recorded, made = _read(_path(job.result)), self._made[job.result]
        if recorded is None:
            inputs = job.image, job.mask, job.sketch, *self._model_files
            is_kept = is_current(job.result, inputs)
            self.unrecorded += is_kept
            return is_kept
        changed = {name for name in made if recorded.get(name) != made[name]}
        self.changed |= changed
        self.outdated += bool(changed)
        return not changed


def _path(result: Path) -> Path:
    """Returns the path of a result's record."""
    # The name is a digest, because a long name with another suffix could exceed the system's limit.
    digest = hashlib.sha256(os.fsencode(result.name)).hexdigest()[:16]
    return result.parent / RECORDS_FOLDER / f"{digest}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        recorded = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return recorded if isinstance(recorded, dict) else None


def _stamp(path: Path | None) -> list[Any] | None:
    """Returns a file's name, size in bytes and time of modification in nanoseconds."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:  # It is reported when the file is read.
        return [path.name]
    return [path.name, status.st_size, status.st_mtime_ns]
