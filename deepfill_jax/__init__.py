"""DeepFillv2 in JAX: free-form image inpainting with gated convolution."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepfill_jax.inpaint.inpainter import Inpainter, Prediction

__version__ = "0.2.0"  # The only place that says it; setup.cfg reads it from here.
__all__ = ["Inpainter", "Prediction"]


if not TYPE_CHECKING:  # A checker would take any name for one of the package.

    def __getattr__(name):
        """Imports the public names on first use: importing the package does not import JAX."""
        if name in __all__:
            from deepfill_jax.inpaint import inpainter

            return getattr(inpainter, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
