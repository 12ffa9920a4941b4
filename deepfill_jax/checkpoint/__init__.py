"""Training checkpoints, written by Orbax to `workdir/checkpoints/STEP`.

A checkpoint contains a `train.state.TrainState`, a checksum of each of its arrays, and the metrics
of the validation at its step. The data position is not saved, because batch n of the stream is a
function of the seed and n.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers

from deepfill_jax import sharding
from deepfill_jax.checkpoint import content, faults
from deepfill_jax.checkpoint.best import KeepBest
from deepfill_jax.checkpoint.reading import (
    FOLDER,
    load_networks,
    rank,
    read_all_metrics,
    saved_steps,
)
from deepfill_jax.checkpoint.record import Record
from deepfill_jax.errors import RunError, UsageError

logger = logging.getLogger(__name__)

__all__ = ["FOLDER", "Checkpoints", "load_networks", "saved_steps"]

PyTree = Any
# See `restore_latest`.
Adapt = Callable[[Mapping[str, list[int]], PyTree], tuple[PyTree, Callable[[PyTree], PyTree]]]

ITEM = "default"  # The subfolder in which Orbax stores the arrays of a checkpoint.


class Checkpoints:
    """The checkpoints of one run: the newest few, the best few, and milestones."""

    def __init__(
        self,
        workdir: str | Path,
        *,
        keep_latest: int,
        keep_best: int,
        keep_every: int = 0,
        best_metric: str = "l1_hole",
    ):
        """Opens the folder of the checkpoints, or creates it.

        Args:
            workdir: The run's folder.
            keep_latest: Number of newest checkpoints to keep.
            keep_best: Number of checkpoints with the best validation metric to keep in addition.
            keep_every: Checkpoints whose step is a multiple of this number are kept in addition;
                0 keeps none.
            best_metric: A key of `metric_table.METRICS` or `metric_table.LPIPS`.

        Raises:
            RunError: The metrics of a checkpoint cannot be read now.
            UsageError: The processes see different checkpoints or metrics.
        """
        # Orbax accepts only absolute paths.
        self._folder = Path(workdir).absolute() / FOLDER
        self._record = Record(self._folder)
        self._keep_best, self._best_metric = keep_best, best_metric
        self._saving: int | None = None
        policies = [checkpoint_managers.LatestN(keep_latest), KeepBest(self.best_steps)]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._add_to_record),
            ),
            item_handlers=ocp.StandardCheckpointHandler(),
        )
        self._metrics = read_all_metrics(self._folder, sorted(self._manager.all_steps()))

    def best_steps(self) -> list[int]:
        """Returns the steps of at most `keep_best` best checkpoints, the best last."""
        ranked = rank(self._metrics, self._best_metric)
        return ranked[max(0, len(ranked) - self._keep_best) :]

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Returns whether a validation's metrics are better than those of all checkpoints."""
        # It is later than every step, because `rank` prefers the earlier of equal ones.
        new = max(self._metrics, default=0) + 1
        ranked = rank({**self._metrics, new: metrics}, self._best_metric)
        return self._keep_best > 0 and ranked[-1:] == [new]

    def save(self, state: PyTree, *, metrics: Mapping[str, float] | None = None) -> None:
        """Saves a checkpoint in the background; the caller may donate the state immediately.

        Args:
            state: A `TrainState`, saved under its step.
            metrics: Means over the validation set by name, if they were measured at this step.

        Raises:
            RunError: This checkpoint or the previous one cannot be written. Earlier checkpoints
                are kept.
        """
        step, metrics = int(state.step), metrics or {}
        described = content.describe(state, metrics)
        with self._writing():
            self._wait()
            self._metrics[step] = described["metrics"]
            args = ocp.args.StandardSave(state)
            self._manager.save(step, args=args, custom_metadata=described)
            self._saving = step

    def _wait(self) -> None:
        """Waits until the checkpoint that is being saved is complete."""
        self._manager.wait_until_finished()
        if self._saving is not None and jax.process_index() == 0:
            self._record.commit(self._saving)
        self._saving = None

    def _add_to_record(self) -> None:
        if jax.process_index() == 0:
            self._record.add_unfinished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many classes of exceptions.
            self._manager.reload()
            kept = sorted(self._manager.all_steps())
            raise RunError(
                f"A checkpoint could not be written to {self._folder}: "
                f"{faults.first_line(error)}. Those of steps {kept} are kept; start again to "
                "resume from there."
            ) from error

    def restore_latest(
        self,
        abstract: PyTree,
        mesh: Mesh,
        *,
        adapt: Adapt = lambda shapes, target: (target, lambda state: state),
        start_over: bool = False,
    ) -> PyTree | None:
        """Restores the newest intact checkpoint onto the devices of `mesh`.

        Newer checkpoints that are corrupt are logged and moved to `workdir/corrupt`. A checkpoint
        that cannot be read now raises an error, and all files stay in place.

        Args:
            abstract: Shapes and dtypes of the state, from `jax.eval_shape`.
            mesh: The devices; their number may differ from that of the run that saved.
            adapt: Given the shapes of a checkpoint's arrays by path, and `abstract`, it returns the
                shapes and dtypes of the state in the checkpoint's own layout, and a function that
                converts the restored state.
            start_over: Return None instead of raising if checkpoints were saved and none is intact.

        Returns:
            The state, or None if there is no checkpoint.

        Raises:
            RunError: A checkpoint cannot be read now in at least one process.
            UsageError: The newest checkpoint belongs to other networks or optimizers, or no
                checkpoint is intact.
        """
        everywhere = sharding.replicated(mesh)
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), abstract
        )
        for step in sorted(self._manager.all_steps(), reverse=True):
            state: PyTree = None
            failure: Exception | None = None
            try:
                state = faults.attempt(
                    functools.partial(self._restore, step, target, adapt),
                    functools.partial(self._record.verify, step),
                )
            except faults.VERDICTS[1:] as error:
                failure = error
            failure = faults.agree(failure, f"Checkpoint {step} of {self._folder}")
            if failure is None:
                return state
            self._set_aside(step, failure)
        if not start_over:
            self._check_nothing_lost()
        return None

    def _restore(self, step: int, target: PyTree, adapt: Adapt) -> PyTree:
        """Restores a checkpoint and compares its arrays with their checksums."""
        shapes, expected = content.read_arrays(self._folder / str(step))
        target, convert = adapt(shapes, target)
        differences = content.differences(shapes, content.shapes(target))
        if differences:
            raise UsageError(
                f"Checkpoint {step} of {self._folder} does not fit this config: "
                f"{content.first_few(differences)}. Give another --workdir, or the config that it "
                "was made with."
            )
        # The manager's `restore` would wait forever for a process that has failed.
        handler = ocp.StandardCheckpointHandler()
        args = ocp.args.StandardRestore(target)
        state = handler.restore(self._folder / str(step) / ITEM, args=args)
        content.compare(content.checksums(state), expected)
        return convert(state)

    def _set_aside(self, step: int, error: Exception) -> None:
        if jax.process_index() == 0:
            place = self._record.place_for_corrupt(step)
            try:
                place.parent.mkdir(exist_ok=True)
                (self._folder / str(step)).rename(place)
            except OSError as failure:
                raise RunError(
                    f"Checkpoint {step} of {self._folder} is corrupt ({error}) and cannot be moved "
                    f"to {place}: {failure}."
                ) from failure
            logger.error("Checkpoint %d is corrupt: %s. It is now in %s.", step, error, place)
        multihost_utils.sync_global_devices(f"checkpoint {step} set aside")
        self._metrics.pop(step, None)
        self._manager.reload()

    def _check_nothing_lost(self) -> None:
        """Raises UsageError if checkpoints were saved, so that a run never restarts silently."""
        failure, lost, newest = None, self._record.corrupt(), self._record.newest_step()
        if lost or newest:
            where = f"corrupt ones are {content.first_few(lost)}" if lost else "the folder is empty"
            failure = UsageError(
                f"None of the checkpoints of {self._folder} is intact, and the run was at step "
                f"{newest or 'N'} or later: {where}. Put an intact one back, or give --start_over "
                "to begin at step 0."
            )
        faults.agree(failure, f"What was saved in {self._folder}")

    def close(self) -> None:
        """Waits until everything is written, and closes the manager.

        Raises:
            RunError: The last checkpoint cannot be written. Earlier checkpoints are kept.
        """
        with self._writing():
            self._wait()
            self._manager.close()
