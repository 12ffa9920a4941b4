"""Generator and discriminator networks of all published DeepFillv2 architectures."""

from deepfill_jax.models.discriminator import Discriminator
from deepfill_jax.models.generator import Generator, Prediction, predict
from deepfill_jax.models.variants import (
    MMAGIC,
    NIPPONJO,
    NIPPONJO_TF,
    OFFICIAL,
    Variant,
    make_variant,
)

__all__ = [
    "MMAGIC",
    "NIPPONJO",
    "NIPPONJO_TF",
    "OFFICIAL",
    "Discriminator",
    "Generator",
    "Prediction",
    "Variant",
    "make_variant",
    "predict",
]
