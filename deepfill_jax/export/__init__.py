"""Export of model files to StableHLO and ONNX, which run without this package.

Both formats contain the same function, which masks the image, fills the hole and composites:

    image      float32 [B, H, W, 3], RGB in [-1, 1]; pixels in the hole are ignored
    mask       float32 [B, H, W, 1], above 0.5 in the hole
    sketch     float32 [B, H, W, 1], above 0.5 on lines; only for sketch-guided models, and lines
               outside the hole are ignored
    completed  float32 [B, H, W, 3], the inpainting result; known pixels equal the image's exactly

Batch size, height and width are free; the sides are multiples of 8 and at least `smallest_side`.
For other sizes, pad the image and the mask by reflection at two edges, as `Inpainter` does, and
crop the result.
"""

import importlib
import json
from types import ModuleType

from deepfill_jax import weights
from deepfill_jax.errors import UsageError
from deepfill_jax.models import Variant
from deepfill_jax.models.generator import DILATIONS, MULTIPLE


def smallest_side(variant: Variant) -> int:
    """Returns the smallest height and width in pixels for exported files of this architecture.

    With symbolic sides, reflection padding is a single operation, which cannot pad by more than the
    map's side. At a quarter of the image's size, the side must therefore exceed the padding of the
    convolution with the largest dilation.
    """
    if variant.padding != "REFLECT":
        return MULTIPLE
    return (4 * max(DILATIONS) // MULTIPLE + 1) * MULTIPLE


def description(model: weights.Model) -> str:
    """Returns the model's architecture and metadata, license included, as JSON for the file."""
    variant = model.variant
    named = {"architecture": variant.name, "width": variant.width, "guided": variant.guided}
    return json.dumps({**model.metadata, **named})


def require(name: str) -> ModuleType:
    """Imports a package of the extra `export`; raises a `UsageError` if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"Export needs the package {name}: pip install 'deepfill_jax[export]'."
        ) from error
