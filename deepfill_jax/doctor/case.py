"""Findings of the checks, and the state that checks share."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax.data import pipeline
from deepfill_jax.data.sources import Source
from deepfill_jax.train.objectives import Batch, Scalars
from deepfill_jax.train.state import TrainState

Value = TypeVar("Value")

OK, WARNING, ERROR, SKIPPED = "ok", "warning", "error", "skipped"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor's output.

    Attributes:
        level: OK; WARNING: training works, but perhaps not as intended; ERROR: training does not
            work; SKIPPED: the check needs the result of another check that failed.
        text: Result of the check; unless it is OK, also what to do.
    """

    level: str
    text: str


class SkippedError(Exception):
    """A check needs something that is not available; the message names it."""


@dataclasses.dataclass
class Case:
    """A run to examine, and the results of the checks so far.

    Attributes:
        config: Config of the run.
        workdir: Folder of the run.
        mesh: The devices, set when JAX has found some.
        source: The training images, set when they can be read.
        batches: Stream of training batches, set when it has yielded one.
        batch: The first batch.
        train_step: Training step compiled for the devices, set when it fits into their memory.
        step_seconds: Duration of a training step in seconds, without waiting for its input.
    """

    config: ConfigDict
    workdir: Path
    mesh: Mesh | None = None
    source: Source | None = None
    batches: Iterator[pipeline.Batch] | None = None
    batch: pipeline.Batch | None = None
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Scalars]] | None = None
    step_seconds: float | None = None

    @property
    def folder(self) -> Path:
        """The only folder that the doctor writes to."""
        return self.workdir / "doctor"


def need(value: Value | None, name: str) -> Value:
    """Returns a result of an earlier check; raises SkippedError if it is None."""
    if value is None:
        raise SkippedError(f"needs the {name}, see above.")
    return value


# A check yields findings. `examination.examine` turns exceptions of a check into findings too.
Check = Callable[[Case], Iterator[Finding]]
