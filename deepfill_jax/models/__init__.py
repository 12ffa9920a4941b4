"""The networks: generator and discriminator, in both published forms."""

from deepfill_jax.models.discriminator import Discriminator
from deepfill_jax.models.generator import Generator, Prediction
from deepfill_jax.models.variants import MMAGIC, OFFICIAL, Variant, make_variant

__all__ = [
    "MMAGIC",
    "OFFICIAL",
    "Discriminator",
    "Generator",
    "Prediction",
    "Variant",
    "make_variant",
]
