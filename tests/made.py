"""Factories of small images, masks and models for tests of inference."""

import numpy as np
from references import random_variables

from deepfill_jax import weights
from deepfill_jax.models import Generator, make_variant


def make_model(name, *, guided=False, gain=None):
    """Returns a model with random weights; `gain` is the factor of their usual deviation."""
    variant = make_variant(name, width=2, discriminator_width=1, guided=guided)
    if gain is None:
        gain = 2.3 if guided else 1.0  # With gain 1, a sketch would hardly change the result.
    return weights.Model(variant, random_variables(Generator(variant), gain=gain)["params"])


def make_picture(height, width, seed=0):
    """Returns a random image, uint8 [H, W, 3], and a mask, uint8 [H, W] of 0 and 255.

    The last pixel is in the hole, so that the hole touches the padding.
    """
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.where(rng.uniform(size=(height, width)) < 0.3, 255, 0).astype(np.uint8)
    mask[-1, -1] = 255
    return image, mask


def make_batch(count, height, width):
    """Returns random images, float32 [B, H, W, 3] in [-1, 1], and masks, float32 [B, H, W, 1]."""
    rng = np.random.default_rng(1)
    image = rng.uniform(-1, 1, (count, height, width, 3)).astype(np.float32)
    mask = (rng.uniform(size=(count, height, width, 1)) < 0.3).astype(np.float32)
    mask[:, -1, -1] = 1
    return image, mask


def truncate(path):
    path.write_bytes(path.read_bytes()[:-60])
