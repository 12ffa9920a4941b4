"""Models as plain data, for another process: the functions of a variant cannot be pickled."""

from typing import Any, NamedTuple

import jax
import numpy as np

from deepfill_jax import weights
from deepfill_jax.inpaint.classical import Classical, Method
from deepfill_jax.models import make_variant
from deepfill_jax.tensors import PyTree


class PackedModel(NamedTuple):
    """A model for inpainting."""

    variant: dict[str, Any]  # Arguments of `make_variant`.
    generator: PyTree  # Numpy arrays.
    metadata: dict[str, Any]


def pack(model: Method) -> PackedModel | Classical:
    """Converts a model to plain data, without its discriminator."""
    if isinstance(model, Classical):
        return model
    names = ("name", "width", "discriminator_width", "guided")
    variant = {name: getattr(model.variant, name) for name in names}
    return PackedModel(variant, jax.tree.map(np.asarray, model.generator), dict(model.metadata))


def unpack(packed: PackedModel | Classical) -> Method:
    """Converts plain data to a model."""
    if isinstance(packed, Classical):
        return packed
    variant = make_variant(**packed.variant)
    return weights.Model(variant, packed.generator, metadata=packed.metadata)
