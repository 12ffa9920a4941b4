"""A model file made into one that runs without this package: StableHLO, or ONNX.

Both hold the same function of an image and a mask, which masks, fills and composites:

    image      float32 [B, H, W, 3] RGB in [-1, 1]; what it holds under the mask has no influence
    mask       float32 [B, H, W, 1]; above 0.5 is the hole
    sketch     float32 [B, H, W, 1], of guided models alone; above 0.5 is a line, in the hole
    completed  float32 [B, H, W, 3]; known pixels are the image's, exactly

Batch and sides are free, the sides multiples of 8 and at least `smallest_side`. Whoever has other
sizes mirrors the image and the mask at two edges, as `Inpainter` does, and crops the result.
"""

import importlib
import json
from types import ModuleType

from deepfill_jax import weights
from deepfill_jax.errors import UsageError
from deepfill_jax.models import Variant
from deepfill_jax.models.generator import DILATIONS, MULTIPLE


def smallest_side(variant: Variant) -> int:
    """The least height and width that a file of this architecture takes.

    With sides that are symbols, a map must be mirrored in one go: at a quarter of the picture's
    size it must be longer than the reach of the most dilated convolution.
    """
    if variant.padding != "REFLECT":
        return MULTIPLE
    return (4 * max(DILATIONS) // MULTIPLE + 1) * MULTIPLE


def description(model: weights.Model) -> str:
    """What is known about a model, its license included, as JSON; it goes into the file."""
    variant = model.variant
    named = {"architecture": variant.name, "width": variant.width, "guided": variant.guided}
    return json.dumps({**model.metadata, **named})


def require(name: str) -> ModuleType:
    """Imports a package of the extra `export`; raises a `UsageError` where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"Exported files need {name}: pip install 'deepfill_jax[export]'."
        ) from error
