"""Training checkpoints by orbax: `workdir/checkpoints/STEP`.

A checkpoint is a `TrainState` with a checksum of each of its arrays. The position in the data is
its step, because batch n of the stream is a function of the seed and n.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers

from deepfill_jax import sharding
from deepfill_jax.checksums import (
    CorruptCheckpointError,
    checksum,
    checksums,
    compare,
    describe,
    differences,
    first_few,
    shapes,
)
from deepfill_jax.errors import RunError, UsageError

PyTree = Any

FOLDER = "checkpoints"
DAMAGED = "damaged"  # Beside it: where checkpoints go that cannot be read.
DELETED_SECONDS = 1.0  # A checkpoint that training deletes is there no longer than this.


class Checkpoints:
    """The checkpoints of one run: the newest few and the best few."""

    def __init__(self, workdir: str | Path, *, keep_latest: int, keep_best: int):
        """Opens, or creates, the folder.

        Args:
            workdir: The run's folder.
            keep_latest: How many of the newest to keep.
            keep_best: How many of those with the lowest hole L1 to keep besides.
        """
        best = checkpoint_managers.BestN(
            get_metric_fn=lambda metrics: metrics["l1_hole"],
            reverse=True,  # The list's end is kept, so the lowest must come last.
            n=keep_best,
            keep_checkpoints_without_metrics=False,
        )
        policy = checkpoint_managers.AnyPreservationPolicy(
            [checkpoint_managers.LatestN(keep_latest), best]
        )
        # Orbax takes absolute paths only.
        self._folder = Path(workdir).absolute() / FOLDER
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(preservation_policy=policy),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def save(self, state: PyTree, *, l1_hole: float | None = None) -> None:
        """Saves in the background; the state may be donated at once.

        Args:
            state: To save, under its step.
            l1_hole: On the validation set, if it was measured at this step.

        Raises:
            RunError: This or the one before cannot be written. Earlier ones are kept.
        """
        metrics = None if l1_hole is None else {"l1_hole": l1_hole}
        with self._writing():
            self._manager.save(
                int(state.step),
                args=ocp.args.StandardSave(state),
                metrics=metrics,
                custom_metadata=describe(state),
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and tensorstore raise many kinds.
            self._manager.reload()
            kept = sorted(self._manager.all_steps())
            raise RunError(
                f"A checkpoint could not be written to {self._folder}: {_first_line(error)}. "
                f"Those of steps {kept} are kept; start again to go on from there."
            ) from error

    def restore_latest(self, abstract: PyTree, mesh: Mesh) -> PyTree | None:
        """Restores the newest checkpoint that is whole, onto the devices of `mesh`.

        Newer ones that are not are named and set aside, in `workdir/damaged`.

        Args:
            abstract: Shapes and types, of `jax.eval_shape`.
            mesh: Any number of devices, whatever the number that saved it.

        Returns:
            The state, or None if there is no checkpoint.

        Raises:
            UsageError: The newest is of other networks or optimisers, or none is whole.
        """
        everywhere = sharding.replicated(mesh)
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), abstract
        )
        found = sorted(self._manager.all_steps(), reverse=True)
        for step in found:
            try:
                return self._restore(step, target)
            except CorruptCheckpointError as error:
                self._set_aside(step, error)
        if found:
            raise UsageError(
                f"None of the checkpoints {found} of {self._folder} is whole; they are in "
                f"{self._folder.with_name(DAMAGED)}. Give another --workdir to start anew."
            )
        return None

    def _restore(self, step: int, target: PyTree) -> PyTree:
        """Restores a checkpoint and compares what it is with what was saved."""
        try:
            saved, expected = _described(self._manager, step)
        except Exception as error:
            raise CorruptCheckpointError(_first_line(error)) from error
        wrong = differences(saved, shapes(target))
        if wrong:
            raise UsageError(
                f"Checkpoint {step} of {self._folder} does not fit this config: "
                f"{first_few(wrong)}. Give another --workdir, or the config that it was made "
                "with."
            )
        try:
            state = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:
            raise CorruptCheckpointError(_first_line(error)) from error
        compare(checksums(state), expected)
        return state

    def _set_aside(self, step: int, error: CorruptCheckpointError) -> None:
        place = self._folder.with_name(DAMAGED) / str(step)
        logging.error("Checkpoint %d is damaged: %s. It is now in %s.", step, error, place)
        if jax.process_index() == 0:
            place.parent.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            (self._folder / str(step)).rename(place)
        multihost_utils.sync_global_devices(f"checkpoint {step} set aside")
        self._manager.reload()

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
            RunError: The last checkpoint cannot be written. Earlier ones are kept.
        """
        with self._writing():
            self._manager.close()


def _described(manager: ocp.CheckpointManager, step: int) -> tuple[dict, dict]:
    """The shapes and checksums of `describe` that were saved with a checkpoint.

    Raises:
        CorruptCheckpointError: They are not what was saved.
    """
    saved = manager.metadata(step).custom_metadata  # What orbax cannot read, it logs.
    if not saved or checksum(saved["arrays"]) != saved["crc32"]:
        raise CorruptCheckpointError("its metadata cannot be read")
    return saved["arrays"]["shapes"], saved["arrays"]["crc32"]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_networks(workdir: str | Path, abstract, *, step: int | None = None) -> tuple[dict, int]:
    """Reads the networks without their optimisers, as numpy arrays.

    Training may go on in the folder meanwhile: a checkpoint that it is writing is not seen, and if
    it deletes the one that is being read, a newer one is taken.

    Args:
        workdir: The run's folder.
        abstract: Shapes of what to read, as in `weights.networks`.
        step: Of the checkpoint; the newest if None.

    Returns:
        The networks and the step. The generator is the running average of its parameters if the
        run kept one, else the parameters.

    Raises:
        UsageError: There is no such checkpoint, or it is damaged.
    """
    folder = Path(workdir).absolute() / FOLDER
    found = _steps(folder)
    while found and step in (None, *found):
        chosen = found[-1] if step is None else step
        try:
            return _read_networks(folder, chosen, abstract), chosen
        except Exception as error:
            time.sleep(DELETED_SECONDS)
            found = _steps(folder)
            if chosen in (found[-1:] if step is None else found):
                raise UsageError(
                    f"Checkpoint {chosen} of {folder} is damaged: {_first_line(error)}. "
                    f"There are {found}."
                ) from error
    raise UsageError(f"There is no checkpoint {'' if step is None else step} in {folder}.")


def _steps(folder: Path) -> list[int]:
    """The steps of a folder's checkpoints, the newest last."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def _read_networks(folder: Path, step: int, abstract: Mapping[str, Any]) -> dict:
    # Read-only, as a manager that may write clears away what others have not finished.
    options = ocp.CheckpointManagerOptions(read_only=True)
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.CheckpointManager(folder, options=options, item_handlers=handler) as manager:
        name = "average" if manager.item_metadata(step)["generator"]["average"] else "params"
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
        item = {**zeros, "generator": {name: zeros["generator"]}}
        restore_args = ocp.checkpoint_utils.construct_restore_args(item)
        restored = manager.restore(
            step,
            args=ocp.args.PyTreeRestore(item, restore_args=restore_args, partial_restore=True),
        )
        compare(checksums(restored), _described(manager, step)[1])
    return {**restored, "generator": restored["generator"][name]}
