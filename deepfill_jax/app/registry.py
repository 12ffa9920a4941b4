"""The registry of models to serve, by name."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from deepfill_jax import trained, weights
from deepfill_jax.convert import sources
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.classical import Method, find_method


def available(named: Sequence[str]) -> dict[str, Method]:
    """Loads models and returns them by name.

    Args:
        named: Models, see `classical.find_method`; if it is empty, those that need no download.
            The metadata of bundled models says their purpose.

    Raises:
        UsageError: There is no model, two models have the same name, or one cannot be loaded.
    """
    named = named or sources.local_names()
    if not named:
        raise UsageError("There is no bundled model; name a model with --model.")
    models = {}
    for path in named:
        name = Path(path).resolve().name
        for suffix in (trained.SUFFIX, *sources.TORCH_SUFFIXES):
            name = name.removesuffix(suffix)
        if name in models:
            raise UsageError(f"Two models have the name {name}; rename one of them.")
        model, _ = find_method(path)
        if (
            isinstance(model, weights.Model)
            and path in trained.names()
            and path in trained.PURPOSES
        ):
            purpose = {"purpose": trained.PURPOSES[path]}
            model = dataclasses.replace(model, metadata=purpose | dict(model.metadata))
        models[name] = model
    return models
