"""Reads the folder of a training run, which `deepfill train --workdir` writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepfill_jax import perceptual, renamed, weights
from deepfill_jax.convert import parent
from deepfill_jax.errors import UsageError
from deepfill_jax.models import make_variant
from deepfill_jax.tensors import expected_tensors, unflatten

CONFIG = "config.json"


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Reads the config of a run as a nested dictionary, with the current names of keys.

    Raises:
        UsageError: `workdir` is not the folder of a run, or its config is damaged.
    """
    path = Path(workdir) / CONFIG
    if not path.is_file():
        raise UsageError(f"{workdir} is not the folder of a run: there is no {path}.")
    try:
        return renamed.with_new_keys(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{path} is damaged ({error}); put the run's config back.") from error


def best_metric(config: Mapping[str, Any]) -> str:
    """Returns the name under which a run's validations record its `config.best_metric`.

    The name of LPIPS depends on the network that measures it, see `perceptual.judge`.
    """
    name = config.get("best_metric", "l1_hole")  # Runs of earlier versions have no such key.
    if name != "lpips":
        return name
    loss = config["loss"]
    judge = perceptual.judge(loss["perceptual"], loss["perceptual_network"])
    return perceptual.METRIC_NAMES[judge]


def parse_step(text: str | None) -> int | str | None:
    """Parses a step from a command line: a number or "best"; None means the newest step.

    Raises:
        UsageError: The text is neither.
    """
    if text in (None, "best"):
        return text
    if text.isdecimal():
        return int(text)
    raise UsageError(f"The step {text!r} is not a number or 'best'.")


def read(workdir: str | Path, *, step: int | str | None = None) -> weights.Model:
    """Reads the networks of a checkpoint.

    The generator's parameters are their exponential moving average if the run kept one. The model
    has a discriminator if the run trained one.

    Args:
        workdir: The run's folder.
        step: The checkpoint's step; None for the newest, "best" for the best by the run's
            `config.best_metric`.

    Raises:
        UsageError: `workdir` is not the folder of a run, or the checkpoint does not exist or is
            corrupt.
        RunError: The checkpoint cannot be read now.
    """
    config = read_config(workdir)
    variant = make_variant(
        config["model"]["architecture"],
        width=config["model"]["width"],
        discriminator_width=config["model"]["discriminator_width"],
        guided=config["model"].get("guided", False),  # Runs of earlier versions have no such key.
    )
    trained = config["loss"]["adversarial"] > 0
    shapes = expected_tensors(variant, discriminator=trained)
    abstract = unflatten(
        {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    )
    networks, step = _load_networks(workdir, abstract, step=step, best_metric=best_metric(config))
    metadata = {
        "step": step,
        "batch_size": config["batch_size"],
        "image_size": config["image_size"],
        "recipe": config["loss"],
        "data": _without_folders(config["data"]["source"]),
        **parent.read(workdir),
    }
    return weights.Model(variant, **networks, metadata=metadata)


def _load_networks(workdir: str | Path, abstract: Any, **options: Any) -> tuple[dict, int]:
    try:
        from deepfill_jax import checkpoint  # Imported here, because Orbax takes half a second.
    except ImportError as error:
        raise UsageError(
            f"{workdir} is the folder of a run; reading it needs {error.name}: pip install "
            "'deepfill_jax[train]', or convert it on a machine that has it."
        ) from error
    return checkpoint.load_networks(workdir, abstract, **options)


def _without_folders(source: str) -> str:
    """Shortens a data source to its last two folders: model files are shared, local paths not."""
    kind, _, place = source.partition(":")
    return source if kind == "tfds" else f"{kind}:{'/'.join(Path(place).parts[-2:])}"
