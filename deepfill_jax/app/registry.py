"""Which models are served, and by what names."""

from collections.abc import Sequence
from pathlib import Path

from deepfill_jax import trained, weights
from deepfill_jax.errors import UsageError


def available(named: Sequence[str]) -> dict[str, weights.Model]:
    """Returns models by the names that people choose them by.

    Args:
        named: Names or files, see `weights.load`; if there are none, all that come with the
            package.

    Raises:
        UsageError: There is none, two have the same name, or one cannot be loaded.
    """
    named = named or trained.names()
    if not named:
        raise UsageError("There is no model to fill with; name one with --model FILE.")
    models = {}
    for path in named:
        name = Path(path).name.removesuffix(trained.SUFFIX)
        if name in models:
            raise UsageError(f"Two models are called {name}; give one of the files another name.")
        models[name] = weights.load(path)
    return models
