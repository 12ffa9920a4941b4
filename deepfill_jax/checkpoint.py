"""Training checkpoints by orbax: `workdir/checkpoints/STEP`.

A checkpoint is a `TrainState`. The position in the data is its step, because batch n of the stream
is a function of the seed and n.
"""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers

from deepfill_jax import sharding
from deepfill_jax.errors import UsageError
from deepfill_jax.train_state import TrainState

FOLDER = "checkpoints"
ITEM = "default"  # Orbax's name of a checkpoint's only item.


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
        self._manager = ocp.CheckpointManager(
            Path(workdir).absolute() / FOLDER,
            options=ocp.CheckpointManagerOptions(preservation_policy=policy),
        )

    def save(self, state: TrainState, *, l1_hole: float | None = None) -> None:
        """Saves in the background; the state may be donated at once.

        Args:
            state: To save, under its step.
            l1_hole: On the validation set, if it was measured at this step.
        """
        metrics = None if l1_hole is None else {"l1_hole": l1_hole}
        self._manager.save(int(state.step), args=ocp.args.StandardSave(state), metrics=metrics)

    def restore_latest(self, abstract: TrainState, mesh: Mesh) -> TrainState | None:
        """Restores the newest checkpoint that can be read, onto the devices of `mesh`.

        Args:
            abstract: Shapes and types, of `jax.eval_shape`.
            mesh: Any number of devices, whatever the number that saved it.

        Returns:
            The state, or None if there is no checkpoint.

        Raises:
            UsageError: There are checkpoints, and none can be read as this state.
        """
        everywhere = sharding.replicated(mesh)
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), abstract
        )
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._manager.restore(step, args=ocp.args.StandardRestore(target))
            except Exception as error:  # noqa: BLE001  Orbax and tensorstore raise many kinds.
                reason = str(error).splitlines()[0]
                logging.error("Checkpoint %d cannot be restored: %s", step, reason)
        if steps:
            raise UsageError(
                f"None of the checkpoints {steps} in {self._manager.directory} fits this config "
                f"({reason}); give another --workdir or the config that they were made with."
            )
        return None

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.close()


def load_generator(workdir: str | Path, abstract, *, step: int | None = None) -> tuple[dict, int]:
    """Reads only the generator's parameters for inference, as numpy arrays.

    Args:
        workdir: The run's folder.
        abstract: Shapes of the parameters.
        step: Of the checkpoint; the newest if None.

    Returns:
        The running average of the parameters if the run kept one, else the parameters; the step.

    Raises:
        UsageError: There is no such checkpoint.
    """
    folder = Path(workdir).absolute() / FOLDER
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
    if not steps or (step is not None and step not in steps):
        raise UsageError(f"There is no checkpoint {'' if step is None else step} in {folder}.")
    step = steps[-1] if step is None else step
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    path = folder / str(step) / ITEM
    reader = ocp.PyTreeCheckpointHandler()
    saved = reader.metadata(path).tree["generator"]
    item = {"generator": {"average" if saved["average"] else "params": zeros}}
    restore_args = ocp.checkpoint_utils.construct_restore_args(item)
    restored = reader.restore(
        path, args=ocp.args.PyTreeRestore(item, restore_args=restore_args, partial_restore=True)
    )
    (params,) = restored["generator"].values()
    return params, step
