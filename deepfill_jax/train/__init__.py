"""Training: the parts of a run built from a config, the training step, and the training loop."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Imports `train` on first use, because it imports TensorFlow."""
    if name == "train":
        from deepfill_jax.train.loop import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
