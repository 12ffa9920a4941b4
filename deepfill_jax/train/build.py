"""Builds the parts of a training run from a config: networks, optimizers, initial state."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from clu import periodic_actions
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax import perceptual, sharding
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import metrics, scoring
from deepfill_jax.metric_table import METRICS
from deepfill_jax.models import Discriminator, Generator, Variant, make_variant
from deepfill_jax.models.generator import check_image_size
from deepfill_jax.models.variants import UNIT_VARIANCE
from deepfill_jax.train import freezing, losses, partial_start, warm_start
from deepfill_jax.train.state import (
    TrainState,
    create_train_state,
    learning_rate_schedule,
    make_optimizer,
)
from deepfill_jax.train.step import TrainStep, make_train_step

PROFILED_STEPS = 5
OPTIMIZERS = {"generator": "optimizer", "discriminator": "discriminator_optimizer"}
INITS = ("published", "unit_variance")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def variant(config: ConfigDict) -> Variant:
    """Returns the architecture that a config describes.

    Raises:
        UsageError: The architecture or its width does not exist.
    """
    return make_variant(
        config.model.architecture,
        width=config.model.width,
        discriminator_width=config.model.discriminator_width,
        guided=config.model.guided,
    )


def networks(config: ConfigDict) -> tuple[Generator, Discriminator]:
    """Builds the generator and the discriminator.

    Raises:
        UsageError: The architecture, its width, init or dtype does not exist.
    """
    built = variant(config)
    if config.model.init not in INITS:
        raise UsageError(
            f"config.model.init={config.model.init!r} must be one of {', '.join(INITS)}."
        )
    if config.model.init == "unit_variance":
        built = dataclasses.replace(built, kernel_init=UNIT_VARIANCE)
    if config.model.dtype not in DTYPES:
        raise UsageError(
            f"config.model.dtype={config.model.dtype!r} must be one of {', '.join(DTYPES)}."
        )
    dtype = DTYPES[config.model.dtype]
    generator = Generator(built, dtype, config.model.remat)
    return generator, Discriminator(built, dtype)


def optimizers(
    config: ConfigDict,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Builds the optimizers of the generator and of the discriminator.

    Raises:
        UsageError: A learning rate would begin to decay after the end of its decay.
    """
    for name in OPTIMIZERS.values():
        values = config[name]
        first = "warmup_steps" if values.warmup_steps >= values.decay_start else "decay_start"
        if 0 < values.decay_steps <= values[first]:
            raise UsageError(
                f"config.{name}.decay_steps={values.decay_steps} must be above "
                f"config.{name}.{first}={values[first]}, after which the decay begins; 0 keeps "
                "the learning rate constant."
            )
    return tuple(make_optimizer(**config[name]) for name in OPTIMIZERS.values())


def schedules(config: ConfigDict) -> dict[str, optax.Schedule]:
    """Returns the learning rates of the networks that are trained."""
    others = ("beta1", "beta2", "clip_norm")
    values = {
        network: {key: value for key, value in config[name].items() if key not in others}
        for network, name in OPTIMIZERS.items()
        if network == "generator" or config.loss.adversarial
    }
    return {network: learning_rate_schedule(**x) for network, x in values.items()}


def train_step(config: ConfigDict, mesh: Mesh, recipe: losses.Recipe | None = None) -> TrainStep:
    """Builds the training step.

    Args:
        config: The run's config.
        mesh: The devices that the step runs on.
        recipe: The losses; None takes those of the config.

    Raises:
        UsageError: See `networks`, `optimizers` and `frozen_parameters`.
    """
    return make_train_step(
        *networks(config),
        *optimizers(config),
        recipe=losses.Recipe(**config.loss) if recipe is None else recipe,
        ema_decay=config.ema_decay,
        grad_accum_steps=config.grad_accum_steps,
        discriminator_steps=config.discriminator_steps,
        skip_nonfinite=config.skip_nonfinite,
        schedules=schedules(config),
        frozen=frozen_parameters(config, mesh),
        mesh=mesh,
        deterministic=config.deterministic,
    )


def frozen_parameters(config: ConfigDict, mesh: Mesh) -> frozenset[str]:
    """Returns the paths of the parameters that `config.freeze` names, see `freezing`.

    Raises:
        UsageError: A pattern matches nothing.
    """
    if not config.freeze:
        return frozenset()
    state = abstract_state(config, mesh)
    names = {
        name
        for network in freezing.NETWORKS
        for name, _ in freezing.paths(network, getattr(state, network).params)
    }
    return freezing.match(config.freeze, names)


def check_sizes(config: ConfigDict, mesh: Mesh) -> None:
    """Checks that the sizes of images and batches are multiples of the numbers that they must be.

    Raises:
        UsageError: A size is not. The message names the key and suggests a value.
    """
    check_image_size(config.image_size, name="config.image_size")
    if config.grad_accum_steps < 1 or config.batch_size % config.grad_accum_steps:
        raise UsageError(
            f"config.batch_size={config.batch_size} must be a multiple of "
            f"config.grad_accum_steps={config.grad_accum_steps}."
        )
    # Each of the `grad_accum_steps` parts of a batch is split over the devices.
    part = config.batch_size // config.grad_accum_steps
    name = "config.batch_size" if part == config.batch_size else "A part of config.batch_size"
    sharding.check_batch_size(part, mesh, name=name)
    sharding.check_batch_size(config.eval.batch_size, mesh, name="config.eval.batch_size")


def check_best_metric(config: ConfigDict) -> None:
    """Checks that validations can measure the metric that selects the best checkpoint.

    Raises:
        UsageError: The metric does not exist, or cannot be measured. The message names the cause.
    """
    name = config.best_metric
    if name not in (*METRICS, "lpips"):
        choices = ", ".join((*METRICS, "lpips"))
        raise UsageError(f"config.best_metric={name!r} must be one of {choices}.")
    if name == "lpips" and config.image_size < perceptual.MIN_SIDE:
        raise UsageError(
            f"config.best_metric='lpips' needs images of {perceptual.MIN_SIDE} pixels or more; "
            f"config.image_size={config.image_size}."
        )
    try:
        validation_measure(config)
    except UsageError as error:
        raise UsageError(f"config.best_metric={name!r} cannot be measured: {error}") from error


def validation_measure(config: ConfigDict) -> scoring.Measure:
    """Returns the function that computes the metrics of a validation.

    They include LPIPS only if it selects the best checkpoint, because it takes longer.

    Raises:
        UsageError: The network that measures LPIPS is not installed.
    """
    if config.best_metric != "lpips":
        return metrics.measure
    judge = perceptual.judge(config.loss.perceptual, config.loss.perceptual_network)
    return metrics.measure_with_lpips(judge)


def initial_state(config: ConfigDict, mesh: Mesh) -> TrainState:
    """Makes the state of step 0 by random initialisation, or from the weights `config.init_from`.

    A guided model that starts from an unguided one initially computes the same for any sketch.
    With `config.init_partial`, weights that do not fit stay random, see `partial_start`.

    Raises:
        UsageError: The weights cannot be read or belong to another architecture.
        RunError: `config.init_from` is a run whose checkpoint cannot be read now.
    """
    source, averaged = config.init_from, config.ema_decay > 0
    # The weights are read first, so that errors are raised before the slow initialisation.
    any_shape = config.init_partial
    model = warm_start.read(source, variant(config), any_shape=any_shape) if source else None
    state = create_train_state(
        *networks(config),
        *optimizers(config),
        seed=config.seed,
        averaged=averaged,
        mesh=mesh,
    )
    if model is None:
        return state
    if any_shape:
        model = partial_start.fit(model, state, source)
    return warm_start.take(model, state, averaged=averaged, mesh=mesh, source=source)


def abstract_state(config: ConfigDict, mesh: Mesh) -> TrainState:
    """Returns the shapes and dtypes of `initial_state` without computing it."""
    plain = ConfigDict({**config, "init_from": ""})
    return jax.eval_shape(lambda: initial_state(plain, mesh))


def profiler(config: ConfigDict, workdir: Path) -> Callable[[int], object]:
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
