"""The training loop: validation, checkpoints and logging at intervals; no arithmetic.

A run's folder contains `config.json`, `parameters.txt`, `checkpoints/`, their record `saved.json`,
TensorBoard event files and, if the run started from weights, `parent.json`. Training again in the
same folder resumes exactly from the newest checkpoint.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from clu import metric_writers, parameter_overview, periodic_actions
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax import checkpoint, distributed, sharding
from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert.run import CONFIG, best_metric
from deepfill_jax.data import streams
from deepfill_jax.errors import PreemptedError
from deepfill_jax.evaluate import scoring, visualization
from deepfill_jax.evaluate.methods import make_evaluation_step
from deepfill_jax.local_paths import require_local
from deepfill_jax.metric_table import LPIPS
from deepfill_jax.train import build, restart
from deepfill_jax.train.objectives import Batch
from deepfill_jax.train.scalar_log import ScalarLog
from deepfill_jax.train.state import TrainState
from deepfill_jax.train.step import TrainStep

PROFILED_STEPS = 5
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
        UsageError: A value of the config, or a file that it names, cannot be used; or checkpoints
            are lost and `start_over` is False.
        RunError: A loss is not finite (checkpoints are saved only while all are), a checkpoint
            cannot be written or read now, or another process of the run has ended.
        PreemptedError: A stop was requested, see `distributed.StopSignal`. The state is saved.
    """
    require_local("workdir", workdir)
    workdir = Path(workdir)
    mesh = sharding.make_mesh()
    build.check_sizes(config, mesh)
    build.check_best_metric(config)
    train_step = build.train_step(config, mesh)
    start_training_batches = streams.training_batches(config)
    validate = _make_validation(config, mesh) if config.eval.every else None

    kept = {key: config[key] for key in ("keep_latest", "keep_best", "keep_every")}
    checkpoints = checkpoint.Checkpoints(workdir, **kept, best_metric=best_metric(config))
    start = restart.starting_state(config, workdir, checkpoints, mesh, start_over=start_over)
    first = int(start.step)
    is_main_process = jax.process_index() == 0
    if is_main_process:
        _describe(config, workdir, start)
    writer = metric_writers.create_default_writer(workdir, just_logging=not is_main_process)
    log = ScalarLog(config, writer, first)
    sharded = (sharding.shard_batch(batch, mesh) for batch in start_training_batches(first))
    profile = _profiler(config, workdir)

    done = first
    with distributed.StopSignal() as stop:
        steps = _run_steps(train_step, start, sharded, log, config)
        for done, state in enumerate(steps, first + 1):
            profile(done)
            metrics: dict[str, float] = {}
            if validate and _is_due(done, config.eval.every, config):
                log.write()
                metrics = validate(state, writer)
                log.validated(metrics["l1_hole"])
            stopping = stop.reached(done)
            intervals = config.checkpoint_every, config.keep_every
            due = any(_is_due(done, every, config) for every in intervals)
            if stopping or due or checkpoints.is_best(metrics):
                log.write()
                checkpoints.save(state, metrics=metrics)
            if stopping:
                break
    writer.flush()
    checkpoints.close()
    if done < config.num_steps:
        raise PreemptedError(f"Stopped on request after step {done}; it is saved in {workdir}.")
    if is_main_process:
        print(f"{done} of {config.num_steps} steps are done: {workdir}")


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


def _profiler(config: ConfigDict, workdir: Path) -> Callable[[int], object]:
    """Returns a function of the finished steps that profiles some from `config.profile_step`."""
    if not config.profile_step:
        return lambda done: None
    return periodic_actions.Profile(
        logdir=workdir,
        first_profile=config.profile_step,
        num_profile_steps=PROFILED_STEPS,
        profile_duration_ms=0,
        every_secs=None,
    )


def _is_due(done: int, every: int, config: ConfigDict) -> bool:
    return done == config.num_steps or bool(every and done % every == 0)


def _describe(config: ConfigDict, workdir: Path, state: TrainState) -> None:
    """Writes the config and the list of parameters, and prints the number of parameters."""
    with atomic_write(workdir / CONFIG) as unfinished:
        unfinished.write_text(config.to_json(indent=2) + "\n")
    overview = {"generator": state.generator.params, "discriminator": state.discriminator.params}
    text = parameter_overview.get_parameter_overview(overview)
    (workdir / "parameters.txt").write_text(text + "\n")
    counts = {name: parameter_overview.count_parameters(net) for name, net in overview.items()}
    print(
        f"{config.model.architecture}: {counts['generator']:,} generator and "
        f"{counts['discriminator']:,} discriminator parameters on {jax.device_count()} "
        f"{jax.devices()[0].platform} device(s); step {int(state.step)} of {config.num_steps}.",
        flush=True,
    )


def _make_validation(config: ConfigDict, mesh: Mesh) -> Callable[..., dict[str, float]]:
    """Makes a function that validates a state, writes scores and samples, and returns the means."""
    generator, _ = build.networks(config)
    start_batches = streams.validation_batches(config)
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

        report = scoring.score(complete, start_batches(), measure=measure)
        means = {name: figures["mean"] for name, figures in report.summary().items()}
        writer.write_scalars(done, {f"eval/{name}": mean for name, mean in means.items()})
        writer.write_images(done, {f"eval/{'_'.join(COLUMNS)}": samples[0][np.newaxis]})
        if jax.process_index() == 0:
            shown = [name for name in PRINTED_METRICS if name in means]
            figures = "  ".join(f"{name} {means[name]:.4g}" for name in shown)
            print(f"step {done}  validation on {len(report.index)}: {figures}", flush=True)
        return means

    return validate


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
