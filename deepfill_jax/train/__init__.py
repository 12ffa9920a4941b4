"""Training: from a config to the parts of a run, one step, and the loop around it."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Imports `train` on first use, as it imports TensorFlow."""
    if name == "train":
        from deepfill_jax.train.loop import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
