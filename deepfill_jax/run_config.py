"""The config of a training run, for an evaluation that names a run but no config.

    --config=deepfill_jax/run_config.py:WORKDIR

is what `deepfill evaluate --workdir=WORKDIR` means.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from deepfill_jax import config
from deepfill_jax.convert.run import read_config


def get_config(workdir: str) -> ConfigDict:
    """Returns the config of the run in a folder.

    Keys that did not exist when the run began have the values of `configs/places.py`, which do what
    the version of the run did.

    Raises:
        UsageError: The folder contains no run, or its config is damaged.
    """
    return ConfigDict(_merged(config.load("places").to_dict(), read_config(workdir)))


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with changes at any depth."""
    merged = dict(values)
    for key, change in changes.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(change, Mapping):
            change = _merged(inner, change)
        merged[key] = change
    return merged
