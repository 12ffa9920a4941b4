"""Evaluation: methods that fill holes, their scores, and the report on them."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Imports `evaluate` on first use, as it imports JAX."""
    if name == "evaluate":
        from deepfill_jax.evaluate.scoring import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
