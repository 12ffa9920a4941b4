"""Models as plain data, for another process: the functions of a variant cannot be pickled."""

from typing import Any, NamedTuple

import jax
import numpy as np

from deepfill_jax import weights
from deepfill_jax.models import make_variant
from deepfill_jax.tensors import PyTree


class PackedModel(NamedTuple):
    """A model for inpainting."""

    variant: dict[str, Any]  # Arguments of `make_variant`.
    generator: PyTree  # Numpy arrays.
    metadata: dict[str, Any]


def pack(model: weights.Model) -> PackedModel:
    """Converts a model to plain data, without its discriminator."""
    names = ("name", "width", "discriminator_width", "guided")
    variant = {name: getattr(model.variant, name) for name in names}
    return PackedModel(variant, jax.tree.map(np.asarray, model.generator), dict(model.metadata))


def unpack(packed: PackedModel) -> weights.Model:
    """Converts plain data to a model."""
    variant = make_variant(**packed.variant)
    return weights.Model(variant, packed.generator, metadata=packed.metadata)
