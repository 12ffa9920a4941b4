"""Evaluation: the methods, their scores, and the report.

`from deepfill_jax.evaluate import evaluate, Report` is the public interface.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepfill_jax.evaluate.evaluation import evaluate
    from deepfill_jax.evaluate.scoring import Report

__all__ = ["Report", "evaluate"]


def __getattr__(name: str) -> Any:
    """Imports the public names on first use, because they import JAX and TensorFlow."""
    if name == "evaluate":
        from deepfill_jax.evaluate.evaluation import evaluate

        return evaluate
    if name == "Report":
        from deepfill_jax.evaluate.scoring import Report

        return Report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
