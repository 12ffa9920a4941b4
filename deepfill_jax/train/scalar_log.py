"""The log of a training run: scalars of its steps, their means, its speed, and warnings."""

import logging
import time
from collections.abc import Mapping

import jax
import numpy as np
from clu import metric_writers
from ml_collections import ConfigDict

from deepfill_jax.errors import RunError
from deepfill_jax.train import health
from deepfill_jax.train.step import Scalars

logger = logging.getLogger(__name__)

MAX_SKIPPED = 100  # Steps in a row that may be skipped.
# Beginnings of the scalars that mean nothing before `loss.adversarial_start_step`.
IDLE = ("hinge/", "loss/discriminator", "gradient_norm/discriminator")


class ScalarLog:
    """Collects scalars of steps on the devices; fetches, checks and writes them at intervals."""

    def __init__(self, config: ConfigDict, writer: metric_writers.MetricWriter, first: int):
        self._config = config
        self._writer = writer
        self._written = first
        self._pending: list[Scalars] = []
        self._skipped = self._skipped_in_a_row = 0
        self._health = health.Health(batch_size=config.batch_size)
        self._restart_clock()

    def _restart_clock(self) -> None:
        """Excludes the time since the last `write` from the speed."""
        self._since = time.perf_counter()

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of a validation and excludes its time from the training speed.

        They are empty if the validation was stopped.
        """
        if metrics:
            self._warn(self._health.validation(metrics["l1_hole"]))
        self._restart_clock()

    def add(self, scalars: Scalars) -> None:
        """Adds the scalars of the next step, which may still be running."""
        self._pending.append(scalars)

    def write(self) -> None:
        """Writes means over the steps since the last call, if there were any.

        Raises:
            RunError: A scalar is not finite.
        """
        if not self._pending:
            return
        history = jax.device_get(self._pending)
        elapsed = time.perf_counter() - self._since
        counted = self._without_skipped(history)
        self._check_finite(counted)
        done = self._written + len(history)
        names = counted[0] if counted else ()
        means = {name: float(np.mean([s[name] for s in counted])) for name in names}
        if self._written < self._config.loss.adversarial_start_step:
            means = {name: x for name, x in means.items() if not name.startswith(IDLE)}
        if self._config.skip_nonfinite:
            means["skipped"] = float(len(history) - len(counted))
        speed = len(history) / elapsed
        self._writer.write_scalars(
            done,
            {f"train/{name}": mean for name, mean in means.items()}
            | {"speed/steps_per_second": speed}
            | {"speed/images_per_second": speed * self._config.batch_size},
        )
        if jax.process_index() == 0:
            self._print(done, means, speed)
        self._warn(self._health.training(means))
        self._written, self._pending = done, []
        self._restart_clock()

    def _warn(self, warnings: list[str]) -> None:
        for warning in warnings if jax.process_index() == 0 else ():
            logger.warning("%s (docs/losses.md)", warning)

    def _without_skipped(self, history: list[Scalars]) -> list[Scalars]:
        """Returns the steps that have changed the state; warns of the others.

        Raises:
            RunError: Too many steps in a row were skipped.
        """
        counted = []
        for step, scalars in enumerate(history, start=self._written + 1):
            if not scalars.get("skipped"):
                counted.append(scalars)
                self._skipped_in_a_row = 0
                continue
            self._skipped += 1
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row == MAX_SKIPPED:
                raise RunError(
                    f"{MAX_SKIPPED} steps in a row, up to step {step}, were skipped because a loss "
                    "or a gradient was not finite. Lower config.optimizer.learning_rate, or start "
                    "from an earlier checkpoint."
                )
        if len(counted) < len(history) and jax.process_index() == 0:
            logger.warning(
                "Skipped %d of the last %d steps because a loss or a gradient was not finite; %d "
                "since the start of this process.",
                *(len(history) - len(counted), len(history), self._skipped),
            )
        return counted

    def _check_finite(self, history: list[Scalars]) -> None:
        for step, scalars in enumerate(history, start=self._written + 1):
            broken = [name for name, value in scalars.items() if not np.isfinite(value)]
            if broken:
                raise RunError(
                    f"{', '.join(broken)} of step {step} is not finite. Nothing was saved after "
                    "it; start again to resume from the last checkpoint, perhaps with a lower "
                    "config.optimizer.learning_rate, a config.optimizer.clip_norm, or "
                    "config.skip_nonfinite=True."
                )

    def _print(self, done: int, means: dict[str, float], speed: float) -> None:
        left = int((self._config.num_steps - done) / speed)
        rate = f"{speed:.3g} steps/s  {speed * self._config.batch_size:.3g} images/s"
        remaining = f"{left // 86400} d {left // 3600 % 24} h {left // 60 % 60} min left"
        kept = "  ".join(f"{k} {v:.4g}" for k, v in means.items() if k.startswith("loss/"))
        print(f"step {done}/{self._config.num_steps}  {kept}  {rate}  {remaining}", flush=True)
