"""The training loop: validation, checkpoints and logging at intervals; no arithmetic.

A run's folder contains `config.json`, `images.json`, `parameters.txt`, `checkpoints/`, their record
`saved.json`, TensorBoard event files, `run.lock`, `parent.json` if the run started from weights,
and `wandb.json` if it writes to Weights & Biases. Training again in the same folder resumes exactly
from the newest checkpoint.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from clu import metric_writers
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax import checkpoint, sharding
from deepfill_jax import config as config_keys
from deepfill_jax.convert.run import best_metric
from deepfill_jax.data import streams
from deepfill_jax.data.sources import Source
from deepfill_jax.errors import PreemptedError
from deepfill_jax.evaluate import scoring, visualization
from deepfill_jax.evaluate.methods import make_evaluation_step
from deepfill_jax.local_paths import require_local
from deepfill_jax.metric_table import LPIPS
from deepfill_jax.train import build, description, lock, restart, writers
from deepfill_jax.train.objectives import Batch
from deepfill_jax.train.scalar_log import ScalarLog
from deepfill_jax.train.state import TrainState
from deepfill_jax.train.step import TrainStep
from deepfill_jax.train.stop import VALIDATION_SECONDS, StopSignal

# Makes the metrics of a state, and writes them.
Validate = Callable[[TrainState, metric_writers.MetricWriter], dict[str, float]]
PRINTED_METRICS = ("l1_hole", "psnr", "ssim", *LPIPS)  # Printed if a validation measures them.
# Rows and columns of the grid of samples in TensorBoard.
SAMPLES = 8
COLUMNS = ("masked", "coarse", "completed", "error", "attention", "truth")


def train(config: ConfigDict, workdir: str | Path, *, start_over: bool = False) -> None:
    """Trains until step `config.num_steps`, or until a stop is requested.

    Args:
        config: See `config.KEYS`.
        workdir: The run's folder; it is created if it does not exist.
        start_over: Begin at step 0 if the checkpoints of later steps are lost or corrupt.

    Raises:
        UsageError: A value of the config, or a file that it names, cannot be used; another run is
            training in the folder; or checkpoints are lost and `start_over` is False.
        RunError: A loss is not finite (checkpoints are saved only while all are), a checkpoint
            cannot be written or read now, or another process of the run has ended.
        PreemptedError: A stop was requested, see `stop.StopSignal`. The state is saved. During the
            start, SIGTERM ends the process.
    """
    require_local("workdir", workdir)
    config_keys.check(config)
    workdir = Path(workdir)
    mesh = sharding.make_mesh()
    build.check_sizes(config, mesh)
    build.check_best_metric(config)
    writers.check(config)
    train_step = build.train_step(config, mesh)
    with lock.hold_for_all(workdir), StopSignal() as stop:
        _train(config, workdir, mesh, train_step, stop, start_over=start_over)


def _train(
    config: ConfigDict,
    workdir: Path,
    mesh: Mesh,
    train_step: TrainStep,
    stop: StopSignal,
    *,
    start_over: bool,
) -> None:
    """Trains until the last step; raises PreemptedError after a stop."""
    with contextlib.ExitStack() as starting:
        # Until the first step is done, nothing can be lost.
        message = "Stopped on request before the first step: nothing was lost."
        starting.enter_context(stop.before_first_step(message))
        sources = {"training": streams.open_source(config)}
        if config.eval.every:
            sources["validation"] = streams.open_source(config, validation=True)
        description.check_images(workdir, sources)
        streams.warn_of_whole_crops(config, sources["training"])
        start_training_batches = streams.training_batches(config, sources["training"])
        validate = _make_validation(config, mesh, stop, sources) if config.eval.every else None
        kept = {key: config[key] for key in ("keep_latest", "keep_best", "keep_every")}
        checkpoints = checkpoint.Checkpoints(workdir, **kept, best_metric=best_metric(config))
        start = restart.starting_state(config, workdir, checkpoints, mesh, start_over=start_over)
        first = done = int(start.step)
        is_main_process = jax.process_index() == 0
        if is_main_process:
            description.write(config, workdir, start, sources)
        writer = writers.create(config, workdir)
        run = _Run(config, workdir, checkpoints, writer, ScalarLog(config, writer, first), stop)
        sharded = (sharding.shard_batch(batch, mesh) for batch in start_training_batches(first))
        profile = build.profiler(config, workdir)
        steps = _run_steps(train_step, start, sharded, run.log, config)
        for done, state in enumerate(steps, first + 1):
            if done == first + 1:
                jax.block_until_ready(state)  # So that no other process is still compiling.
                starting.close()
            profile(done)
            if run.act_after_step(done, state, validate):
                raise PreemptedError(run.close(done))
    run.close(done)
    if is_main_process:
        print(f"{done} of {config.num_steps} steps are done: {workdir}")


@dataclasses.dataclass(frozen=True)
class _Run:
    """The parts of a run that act after a step."""

    config: ConfigDict
    workdir: Path
    checkpoints: checkpoint.Checkpoints
    writer: metric_writers.MetricWriter
    log: ScalarLog
    stop: StopSignal

    def act_after_step(self, done: int, state: TrainState, validate: Validate | None) -> bool:
        """Validates and saves if that is due; returns whether to stop, which saves too."""
        config, metrics = self.config, {}
        stopping = self.stop.requested()
        if validate and _is_due(done, config.eval.every, config) and not stopping:
            self.log.write()
            with self.stop.leaving(VALIDATION_SECONDS, lambda: self._save_and_close(state)):
                metrics = validate(state, self.writer)
            stopping = self.stop.requested()
            self.log.validated(metrics)
        intervals = config.checkpoint_every, config.keep_every
        due = any(_is_due(done, every, config) for every in intervals)
        if stopping or due or self.checkpoints.is_best(metrics):
            self.log.write()
            self.checkpoints.save(state, metrics=metrics)
        return stopping

    def _save_and_close(self, state: TrainState) -> str:
        """Saves a state whose validation is not finished; returns the message."""
        self.checkpoints.save(state)
        return self.close(int(state.step))

    def close(self, done: int) -> str:
        """Waits until everything is written; returns the message of a stop."""
        self.writer.close()
        self.checkpoints.close()
        return f"Stopped on request after step {done}; it is saved in {self.workdir}."


def _run_steps(
    train_step: TrainStep,
    state: TrainState,
    batches: Iterator[Batch],
    log: ScalarLog,
    config: ConfigDict,
) -> Iterator[TrainState]:
    """Runs the remaining steps, logs their scalars, and yields the state after each.

    It only enqueues steps: while a step runs, the host reads the next batch, puts it on the
    devices, and fetches the scalars of earlier steps. The host waits for validations and saves, and
    for the step before the one it has enqueued: if it ran further ahead, stopping would take long.
    """
    running = None
    for done in range(int(state.step), config.num_steps):
        with jax.profiler.StepTraceAnnotation("train", step_num=done):
            state, scalars = train_step(state, next(batches))
        if _is_due(done, config.log_every, config):
            log.write()
        log.add(scalars)
        jax.block_until_ready(running)
        running = scalars
        yield state


def _is_due(done: int, every: int, config: ConfigDict) -> bool:
    return done == config.num_steps or bool(every and done % every == 0)


def _make_validation(
    config: ConfigDict, mesh: Mesh, stop: StopSignal, sources: Mapping[str, Source]
) -> Validate:
    """Makes a function that validates a state, writes scores and samples, and returns the means.

    If a stop is requested, it ends after the current batch, writes nothing and returns {}.
    """
    generator, _ = build.networks(config)
    start_batches = streams.validation_batches(config, sources["validation"])
    evaluation_step = make_evaluation_step(generator, mesh, seamless=config.eval.seamless)
    measure = build.validation_measure(config)

    def validate(state: TrainState, writer: metric_writers.MetricWriter) -> dict[str, float]:
        done = int(state.step)
        samples: list[np.ndarray] = []

        def complete(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            result = evaluation_step(state.inference_params, batch)
            if not samples:
                samples.append(_draw_samples(batch | result))
            return result

        report = scoring.score(complete, _until(stop, start_batches()), measure=measure)
        if stop.requested():
            return {}
        means = {name: figures["mean"] for name, figures in report.summary().items()}
        writer.write_scalars(done, {f"eval/{name}": mean for name, mean in means.items()})
        writer.write_images(done, {f"eval/{'_'.join(COLUMNS)}": samples[0][np.newaxis]})
        if jax.process_index() == 0:
            shown = [name for name in PRINTED_METRICS if name in means]
            figures = "  ".join(f"{name} {means[name]:.4g}" for name in shown)
            print(f"step {done}  validation on {len(report.index)}: {figures}", flush=True)
        return means

    return validate


def _until(stop: StopSignal, batches: Iterable[dict[str, np.ndarray]]) -> Iterator:
    """Yields batches, at least one, until a stop is requested."""
    for batch in batches:
        yield batch
        if stop.requested():
            return


def _draw_samples(batch: dict[str, np.ndarray]) -> np.ndarray:
    """Draws `COLUMNS` of the first examples as a grid, uint8 [H, W, 3].

    Args:
        batch: A batch of the data pipeline with the results of `make_inference_step`.
    """
    batch = {name: rows[:SAMPLES] for name, rows in batch.items()}
    drawn = {
        **{
            name: np.rint(batch[name]).astype(np.uint8)
            for name in ("masked", "coarse", "completed")
        },
        "error": visualization.error_map(batch["completed"], batch["image"]),
        "attention": visualization.offset_map(batch["offsets"], batch["image"], batch["mask"]),
        "truth": batch["image"],
    }
    return scoring.sample_grid([drawn[name] for name in COLUMNS])
