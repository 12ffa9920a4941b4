"""Reads the networks and metrics of training checkpoints, even while the run writes new ones."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from deepfill_jax.checkpoint import content, faults
from deepfill_jax.checkpoint.faults import CorruptCheckpointError, UnreadableCheckpointError
from deepfill_jax.checkpoint.record import Record
from deepfill_jax.distributed import assert_same_on_all_processes
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.metric_table import LPIPS, METRICS

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
# Given instead of a step, it selects the best checkpoint by the run's `config.best_metric`.
BEST = "best"


def saved_steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, the newest last."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def read_metrics(folder: Path, step: int) -> dict[str, float]:
    """Reads the validation metrics that were saved with a checkpoint; empty if there are none.

    Raises:
        CorruptCheckpointError: The metrics fail their checksum or cannot be decoded.
        UnreadableCheckpointError: The metrics cannot be read now.
    """
    place = folder / str(step)
    return faults.attempt(
        lambda: content.read_metrics(place),
        lambda: Record(folder).verify(step),
        exists=place.is_dir,
    )


def read_all_metrics(folder: Path, steps: Sequence[int]) -> dict[int, dict[str, float]]:
    """Reads the validation metrics of a run's checkpoints by step, the same in all processes.

    Corrupt metrics are logged and omitted, because the checkpoint's arrays may still be intact.

    Raises:
        RunError: Metrics cannot be read now in at least one process.
        UsageError: The processes see different checkpoints or metrics.
    """
    assert_same_on_all_processes(f"The list of checkpoints in {folder}", str(steps))
    metrics, failure = {}, None
    for step in steps:
        try:
            metrics[step] = read_metrics(folder, step)
        except CorruptCheckpointError as error:
            logger.error("The metrics of checkpoint %d cannot be used: %s.", step, error)
        except UnreadableCheckpointError as error:
            failure = error
    faults.agree(failure, f"The metrics of a checkpoint in {folder}")
    assert_same_on_all_processes(f"The metrics in {folder}", json.dumps(metrics))
    return metrics


def rank(metrics: Mapping[int, Mapping[str, float]], name: str) -> list[int]:
    """Returns the steps with a finite metric, the best last; ties go to the earlier step.

    Args:
        metrics: The metrics of each step by name.
        name: The metric to compare, a key of `metric_table.METRICS` or `metric_table.LPIPS`.
    """
    sign = -1 if (METRICS | LPIPS)[name].best is min else 1
    steps = [step for step, values in metrics.items() if math.isfinite(values.get(name, math.nan))]
    return sorted(steps, key=lambda step: (sign * metrics[step][name], -step))


def load_networks(
    workdir: str | Path,
    abstract: Mapping[str, Any],
    *,
    step: int | str | None = None,
    best_metric: str = "l1_hole",
) -> tuple[dict, int]:
    """Reads the networks of a checkpoint as numpy arrays, without the optimizer states.

    The run may be training at the same time. A checkpoint that it is still writing is ignored; if
    it deletes the newest checkpoint during reading, a newer one is read instead.

    Args:
        workdir: The run's folder.
        abstract: Shapes and dtypes of the tensors to read, structured like `weights.networks`.
        step: The checkpoint's step; None for the newest, `BEST` for the one with the best metric.
        best_metric: The run's metric, a key of `metric_table.METRICS` or `metric_table.LPIPS`.

    Returns:
        The networks and the step. The generator's parameters are their exponential moving average
        if the run kept one.

    Raises:
        UsageError: The checkpoint does not exist or is corrupt.
        RunError: The checkpoint cannot be read now.
    """
    folder = Path(workdir).absolute() / FOLDER
    while True:
        chosen = _choose(folder, step, best_metric)
        place = folder / str(chosen)
        try:
            networks = faults.attempt(
                lambda: _read_networks(place, abstract),  # noqa: B023
                lambda: Record(folder).verify(chosen),  # noqa: B023
                exists=place.is_dir,
            )
            return networks, chosen
        except (CorruptCheckpointError, UnreadableCheckpointError) as error:
            deleted = not place.is_dir()
            if deleted or (step is None and saved_steps(folder)[-1] != chosen):
                continue
            raise _explained(error, folder, chosen) from error


def _explained(error: Exception, folder: Path, step: int) -> Exception:
    there = f"There are {saved_steps(folder)}."
    if isinstance(error, CorruptCheckpointError):
        return UsageError(f"Checkpoint {step} of {folder} is corrupt: {error}. {there}")
    return RunError(
        f"Checkpoint {step} of {folder} cannot be read now: {error}. Try again when the cause is "
        f"gone. {there}"
    )


def _choose(folder: Path, step: int | str | None, best_metric: str) -> int:
    steps = saved_steps(folder)
    if step == BEST:
        return _best(folder, steps, best_metric)
    if not steps or step not in (None, *steps):
        which = "" if step is None else f" {step}"
        raise UsageError(f"There is no checkpoint{which} in {folder}; there are {steps}.")
    return steps[-1] if step is None else step


def _best(folder: Path, steps: list[int], best_metric: str) -> int:
    metrics = {}
    for step in steps:
        try:
            metrics[step] = read_metrics(folder, step)
        except (CorruptCheckpointError, UnreadableCheckpointError) as error:
            if (folder / str(step)).is_dir():  # Training may have deleted it in the meantime.
                raise _explained(error, folder, step) from error
    ranked = rank(metrics, best_metric)
    if not ranked:
        raise UsageError(
            f"None of the checkpoints {steps} of {folder} was saved with {best_metric} of a "
            "validation, so none is known to be the best; name a step."
        )
    return ranked[-1]


def _read_networks(place: Path, abstract: Mapping) -> dict:
    # Read-only, because a manager that may write deletes the unfinished checkpoints of others.
    options = ocp.CheckpointManagerOptions(read_only=True)
    handler = ocp.PyTreeCheckpointHandler()
    step = int(place.name)
    with ocp.CheckpointManager(place.parent, options=options, item_handlers=handler) as manager:
        name = "average" if manager.item_metadata(step)["generator"]["average"] else "params"
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
        item = {**zeros, "generator": {name: zeros["generator"]}}
        restore_args = ocp.checkpoint_utils.construct_restore_args(item)
        restored = manager.restore(
            step,
            args=ocp.args.PyTreeRestore(item, restore_args=restore_args, partial_restore=True),
        )
    content.compare(content.checksums(restored), content.read_arrays(place)[1])
    return {**restored, "generator": restored["generator"][name]}
