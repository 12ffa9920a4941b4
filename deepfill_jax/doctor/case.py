"""What a check finds, and what checks hand to those after them."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax.data.pipeline import Batch
from deepfill_jax.data.sources import Source
from deepfill_jax.train.step import TrainStep

OK, WARNING, WRONG, SKIPPED = "ok", "warning", "wrong", "skipped"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        level: OK; WARNING, training works but perhaps not as meant; WRONG, it does not; SKIPPED,
            something else is wrong that this check needs.
        text: What was found, and if it is not OK what to do.
    """

    level: str
    text: str


class SkippedError(Exception):
    """A check has not what it needs; the message says what that is."""


@dataclasses.dataclass
class Case:
    """A run that somebody wants to start, and what the checks have learnt of it so far.

    Attributes:
        config: The run's.
        workdir: The run's folder.
        mesh: The devices, once JAX has found some.
        source: The training pictures, once they can be read.
        batches: The stream of them, once a batch came out of it.
        batch: Its first batch.
        train_step: Compiled for these devices, once it is known to fit into their memory.
        step_seconds: What a training step took.
    """

    config: ConfigDict
    workdir: Path
    mesh: Mesh | None = None
    source: Source | None = None
    batches: Iterator[Batch] | None = None
    batch: Batch | None = None
    train_step: TrainStep | jax.stages.Compiled | None = None
    step_seconds: float | None = None

    @property
    def folder(self) -> Path:
        """Where the doctor writes, and nowhere else."""
        return self.workdir / "doctor"

    def need(self, name: str) -> None:
        """Raises SkippedError if an attribute is not there yet."""
        if getattr(self, name) is None:
            raise SkippedError(f"needs the {name.replace('_', ' ')}, see above.")


# A check yields its findings. What it raises is a finding too, see `doctor.examine`.
Check = Callable[[Case], Iterator[Finding]]
