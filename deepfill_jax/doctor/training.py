"""Checks of the settings, the speed, and whether the networks learn."""

import dataclasses
import time
from collections.abc import Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from deepfill_jax import sharding
from deepfill_jax.data import pipeline, streams
from deepfill_jax.doctor.case import ERROR, OK, WARNING, Case, Finding, need
from deepfill_jax.train import build, health, losses, writers
from deepfill_jax.train.objectives import Scalars

TIMED_STEPS = 10
TIMED_SECONDS = 20.0  # No further step is timed after this time.
INPUT_SECONDS = 5.0  # Time limit for measuring the speed of the input.
MAX_WAITING_SHARE = 0.2  # Share of a step's time, waiting for images, above which it warns.
MAX_RUN_DAYS = 30  # Duration of a run above which it warns.
OVERFIT_STEPS = 50
OVERFIT_BATCH = 4
# Images are reduced to OVERFIT_SIZE pixels if a step would take more than OVERFIT_STEP_SECONDS.
OVERFIT_SIZE = 64
OVERFIT_STEP_SECONDS = 0.5
# With the published learning rate and initialisation, the loss falls too little in so few steps.
OVERFIT_RATE = 1e-3
MAX_LOSS_RATIO = 0.98  # Last loss by first loss below which training on one batch has learnt.
# Adam's published learning rate is for a batch of 16; it scales with the square root of the batch.
PUBLISHED_RATE, PUBLISHED_BATCH, RATE_FACTOR = 1e-4, 16, 20


def settings(case: Case) -> Iterator[Finding]:
    """Checks for settings that are invalid or probably unintended."""
    mesh = need(case.mesh, "mesh")
    build.check_sizes(case.config, mesh)
    build.check_best_metric(case.config)
    writers.check(case.config)
    odd = list(odd_settings(case.config))
    yield from (Finding(WARNING, text) for text in odd)
    if not odd:
        part = case.config.batch_size // case.config.grad_accum_steps // mesh.size
        rate = f"learning rate {case.config.optimizer.learning_rate:g}"
        gan = f"with{'' if case.config.loss.adversarial else 'out'} a discriminator"
        text = f"batch size {case.config.batch_size}, {part} at once on each device, {rate}, {gan}"
        yield Finding(OK, f"{text}, seed {case.config.seed}.")


def odd_settings(config: ConfigDict) -> Iterator[str]:
    """Yields a sentence for each setting that is valid but probably unintended."""
    optimizer, loss = config.optimizer, config.loss
    if loss.adversarial and config.batch_size < health.MIN_BATCH_SIZE:
        yield health.small_batch(config.batch_size)
    if not (loss.l1_whole or loss.l1_hole):
        yield "config.loss has no L1 term in the hole, so colours will be arbitrary; set l1_hole=1."
    usual = PUBLISHED_RATE * (config.batch_size / PUBLISHED_BATCH) ** 0.5
    if not usual / RATE_FACTOR <= optimizer.learning_rate <= usual * RATE_FACTOR:
        yield (
            f"config.optimizer.learning_rate={optimizer.learning_rate:g} is far from the usual "
            f"{usual:.2g} for a batch size of {config.batch_size}; try that value."
        )
    if 0 < optimizer.decay_steps < config.num_steps:
        yield (
            f"config.optimizer.decay_steps={optimizer.decay_steps} ends before config.num_steps="
            f"{config.num_steps}: later steps have a learning rate of 0; make them equal."
        )
    if optimizer.warmup_steps >= config.num_steps:
        yield (
            f"config.optimizer.warmup_steps={optimizer.warmup_steps} is longer than the run of "
            f"{config.num_steps} steps; lower it."
        )
    if not config.eval.every or config.eval.every > config.num_steps:
        yield (
            f"config.eval.every={config.eval.every} validates at the end or never, so the best "
            "checkpoint cannot be kept; set it to a twentieth of config.num_steps."
        )


def speed(case: Case) -> Iterator[Finding]:
    """Measures the speed of `TIMED_STEPS` training steps, and of reading images alone."""
    train_step = need(case.train_step, "train step")
    batches = need(case.batches, "batches")
    config, mesh = case.config, need(case.mesh, "mesh")
    state = build.initial_state(config, mesh)
    waits: list[float] = []
    times: list[float] = []
    scalars: Scalars = {}
    # There is one more step, because the first is a warm-up; it only counts if it is the only one.
    while len(times) <= TIMED_STEPS and sum(times) < TIMED_SECONDS:
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        state, scalars = train_step(state, sharding.shard_batch(batch, mesh))
        scalars = jax.device_get(scalars)
        times.append(time.perf_counter() - start)
    del state
    first = min(1, len(times) - 1)
    waited, elapsed = sum(waits[first:]), sum(times[first:])
    count = len(times) - first
    case.step_seconds = (elapsed - waited) / count
    not_finite = [name for name, value in scalars.items() if not np.isfinite(value)]
    if not_finite:
        remedy = "lower config.optimizer.learning_rate or set config.optimizer.clip_norm=1"
        text = f"{', '.join(not_finite)} of step {len(times)} is not finite"
        yield Finding(ERROR, f"{text}; {remedy}.")
    yield judge_speed(
        config,
        steps=count,
        step_seconds=elapsed / count,
        waiting=waited / elapsed,
        input_seconds=_input_seconds(batches, streams.worker_count(config)),
    )


def _input_seconds(batches: Iterator[pipeline.Batch], workers: int) -> float:
    """Measures seconds per batch without training, after the prefetched batches are used up."""
    start, count = time.perf_counter(), 0
    prefetched = workers + pipeline.READY_BATCHES
    times = []
    while count < 3 * prefetched and time.perf_counter() - start < INPUT_SECONDS:
        batch_start = time.perf_counter()
        next(batches)
        times.append(time.perf_counter() - batch_start)
        count += 1
    steady = times[min(prefetched, len(times) - 1) :]
    return sum(steady) / len(steady)


def judge_speed(
    config: ConfigDict, *, steps: int, step_seconds: float, waiting: float, input_seconds: float
) -> Finding:
    """Judges the duration of the whole run, and whether it waits for its input.

    Args:
        config: Config of the run.
        steps: Number of timed steps.
        step_seconds: Seconds per step, its input included.
        waiting: Share of that time spent waiting for a batch.
        input_seconds: Seconds per batch if no training runs at the same time.
    """
    days = config.num_steps * step_seconds / 86400
    images, readable = (config.batch_size / seconds for seconds in (step_seconds, input_seconds))
    rates = f"{_three(1 / step_seconds)} steps/s, {_three(images)} images/s"
    text = (
        f"{rates} over {steps} steps, so {config.num_steps:,} steps take {_duration(days)}; "
        f"{waiting:.0%} of it is waiting for images, of which {_three(readable)} a second can be "
        "read"
    )
    if waiting > MAX_WAITING_SHARE or input_seconds > step_seconds:
        remedy = "put smaller copies of the images on a fast disk, or use more CPU cores"
        return Finding(WARNING, f"{text}; reading images limits the speed: {remedy}.")
    if days > MAX_RUN_DAYS:
        return Finding(WARNING, f"{text}; use a GPU, fewer steps or a smaller config.")
    return Finding(OK, f"{text}.")


def _three(number: float) -> str:
    """Formats a number with three digits, without an exponent."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _duration(days: float) -> str:
    minutes = round(days * 1440)
    if minutes < 100:
        return f"{max(minutes, 1)} min"
    return f"{minutes / 60:.3g} hours" if minutes < 4320 else f"{minutes / 1440:.3g} days"


def overfit(case: Case) -> Iterator[Finding]:
    """Trains on a single batch, whose reconstruction loss must fall."""
    first_batch = need(case.batch, "batch")
    config, mesh = case.config, sharding.make_mesh(jax.devices()[:1])
    recipe = dataclasses.replace(losses.Recipe(**config.loss), adversarial=0.0)
    small = config.copy_and_resolve_references()
    small.update({"grad_accum_steps": 1, "ema_decay": 0.0})
    rate = max(config.optimizer.learning_rate, OVERFIT_RATE)
    for optimizer in (small.optimizer, small.discriminator_optimizer):
        optimizer.update({"learning_rate": rate, "warmup_steps": 0, "decay_steps": 0})
    batch = {name: rows[:OVERFIT_BATCH] for name, rows in first_batch.items()}
    seconds = (case.step_seconds or np.inf) * len(batch["image"]) / config.batch_size
    if config.image_size >= 2 * OVERFIT_SIZE and seconds > OVERFIT_STEP_SECONDS:
        batch = _shrink(batch, OVERFIT_SIZE)
    step = build.train_step(small, mesh, recipe)
    state = build.initial_state(small, mesh)
    sharded, history = sharding.shard_batch(batch, mesh), []
    for _ in range(OVERFIT_STEPS):
        state, scalars = step(state, sharded)
        history.append(scalars["loss/generator"])
    yield judge_overfit(np.array(jax.device_get(history)), batch["image"].shape, rate)


def _shrink(batch: pipeline.Batch, size: int) -> pipeline.Batch:
    """Downsamples a batch to `size` pixels, taking every n-th pixel of images and masks."""
    stride = batch["image"].shape[1] // size
    return {name: rows[:, ::stride, ::stride][:, :size, :size] for name, rows in batch.items()}


def judge_overfit(history: np.ndarray, shape: tuple[int, ...], rate: float) -> Finding:
    """Judges whether the loss of training on one batch falls.

    Args:
        history: Loss at each step.
        shape: Shape of the batch's images, [B, H, W, 3].
        rate: Learning rate.
    """
    first, last = history[0], history[-5:].mean()
    text = (
        f"{len(history)} steps on {shape[0]} examples of {shape[1]} px, learning rate {rate:g}, no "
        f"discriminator: reconstruction loss {first:.4g} -> {last:.4g}"
    )
    if last < MAX_LOSS_RATIO * first:
        return Finding(OK, f"{text}.")
    remedy = "lower config.optimizer.learning_rate if it is above 0.001, check config.loss"
    return Finding(ERROR, f"{text}, which does not fall; {remedy} and look at batch.png.")
