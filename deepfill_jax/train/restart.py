"""The state in which a run starts: its newest intact checkpoint, or step 0 if it saved none."""

from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax import checkpoint
from deepfill_jax.checkpoint import faults
from deepfill_jax.convert.run import CONFIG, read_config
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import event_files
from deepfill_jax.train import build, layouts, warm_start
from deepfill_jax.train.state import TrainState


def starting_state(
    config: ConfigDict,
    workdir: Path,
    checkpoints: checkpoint.Checkpoints,
    mesh: Mesh,
    *,
    start_over: bool,
) -> TrainState:
    """Restores the newest intact checkpoint, or makes the state of step 0.

    Args:
        config: The run's config.
        workdir: The run's folder.
        checkpoints: The run's checkpoints.
        mesh: The devices that the state is placed on.
        start_over: Begin at step 0 even if the checkpoints of later steps are lost.

    Raises:
        UsageError: The run was at later steps and no checkpoint is intact, the newest checkpoint
            does not fit the config, or the initial weights cannot be used.
        RunError: A checkpoint cannot be read now.
    """
    abstract = build.abstract_state(config, mesh)
    state = checkpoints.restore_latest(abstract, mesh, adapt=layouts.adapt, start_over=start_over)
    if state is not None:
        return state
    if not start_over:
        _check_curves(workdir)
    state = build.initial_state(config, mesh)
    if config.init_from and jax.process_index() == 0:
        warm_start.remember_parent(config.init_from, workdir)
    return state


def _check_curves(workdir: Path) -> None:
    """Raises UsageError if the event files prove that a checkpoint was saved.

    Runs of earlier versions have no other record. A checkpoint must have existed if the curves
    reach twice `checkpoint_every`, because saving is asynchronous and the second save waits for the
    first.
    """
    failure = None
    if jax.process_index() == 0 and (workdir / CONFIG).is_file():
        try:
            failure = _lost(workdir, read_config(workdir).get("checkpoint_every", 0))
        except UsageError as error:
            failure = UsageError(f"{error} Or give --start_over to begin at step 0.")
    faults.agree(failure, f"The curves in {workdir}")


def _lost(workdir: Path, every: int) -> UsageError | None:
    curve = event_files.read(workdir).get("train/loss/generator") if every else None
    newest = int(curve.steps[-1]) if curve is not None else 0
    if not every or newest < 2 * every:
        return None
    return UsageError(
        f"There is no checkpoint in {workdir}, but its event files reach step {newest} and one was "
        f"saved every {every} steps. Put them back, or give --start_over to begin at step 0."
    )
