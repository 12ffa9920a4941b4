"""Starting a training run from existing weights (`config.init_from`)."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from deepfill_jax import sharding
from deepfill_jax.convert import parent, sources
from deepfill_jax.convert.guided import with_sketch_channels
from deepfill_jax.errors import UsageError
from deepfill_jax.models import Variant
from deepfill_jax.train.state import TrainState
from deepfill_jax.weights import Model

logger = logging.getLogger(__name__)


def read(source: str, asked: Variant, *, any_shape: bool = False) -> Model:
    """Reads weights. An unguided model gets kernels for the sketch if the config asks for one.

    Args:
        source: See `convert.sources.read`.
        asked: The architecture of the config.
        any_shape: Whether the weights may be of another architecture.

    Raises:
        UsageError: They cannot be read, or are of another architecture.
    """
    model = sources.read(source).model
    if asked.guided and not model.variant.guided:
        model = with_sketch_channels(model)
    if not any_shape:
        _check_architecture(model, asked, source)
    return model


def take(model: Model, state: TrainState, *, averaged: bool, mesh: Mesh, source: str) -> TrainState:
    """Puts a model's networks and Adam's moments, if it has them, into a random state.

    Args:
        model: The weights.
        state: The state of step 0.
        averaged: Whether the state keeps a running average.
        mesh: Devices of the state.
        source: Where the weights came from, for the log.
    """
    everywhere = sharding.replicated(mesh)
    params = jax.device_put(model.generator, everywhere)
    average = jax.tree.map(jnp.copy, params) if averaged else {}
    nets = {
        "generator": state.generator.replace(params=params, average=average),
        "discriminator": state.discriminator,
    }
    taken = ["generator"]
    if model.discriminator is not None:
        discriminator = jax.device_put(model.discriminator, everywhere)
        nets["discriminator"] = nets["discriminator"].replace(**discriminator)
        taken.append("discriminator")
    for name, moments in model.moments.items():
        moments = jax.device_put(moments, everywhere)
        opt_state = nets[name].opt_state._replace(**moments)
        nets[name] = nets[name].replace(opt_state=opt_state)
        taken.append(f"Adam's moments of the {name} after {moments['count']} updates")
    logger.info("Took from %s: %s. Training starts at step 0.", source, ", ".join(taken))
    return state.replace(**nets)


def remember_parent(source: str, workdir: Path) -> None:
    """Writes name and license of the weights into the run's folder, for models made from it."""
    parent.write(workdir, source, sources.read(source).model.metadata)


def _check_architecture(model: Model, asked: Variant, source: str) -> None:
    """Raises UsageError if the weights do not fit the config's networks; lists the differences."""
    fields = {"name": "architecture", "width": "width", "guided": "guided"}
    if model.discriminator is not None:
        fields["discriminator_width"] = "discriminator_width"
    differences = {
        key: f"{key} {getattr(model.variant, field)!r} where the config asks for "
        f"{getattr(asked, field)!r}"
        for field, key in fields.items()
        if getattr(model.variant, field) != getattr(asked, field)
    }
    if differences:
        way_out = " `deepfill convert --generator-only` leaves the discriminator out."
        raise UsageError(
            f"config.init_from={source} holds {', '.join(differences.values())}. "
            "config.init_partial=True takes the weights that fit."
            + way_out
            * ("discriminator_width" in differences)
        )
