"""Conversion of an unguided model to a sketch-guided one, to train it further with sketches."""

import dataclasses

import numpy as np

from deepfill_jax.tensors import expected_tensors, flatten, unflatten
from deepfill_jax.weights import Model, networks


def with_sketch_channels(model: Model) -> Model:
    """Adds sketch channels with zero weights, so that the model's outputs stay the same.

    Adam's moments are dropped: with the old moments, the first updates of the new weights would be
    too large.
    """
    variant = dataclasses.replace(model.variant, guided=True)
    expected = expected_tensors(variant, discriminator=model.discriminator is not None)

    def widen(name: str, x: np.ndarray) -> np.ndarray:
        if x.shape == expected[name]:
            return x
        # The sketch is the fourth input channel of the generator and the last of the discriminator.
        channel = 3 if name.startswith("generator/") else 4
        if name.endswith("/v"):  # Flattened in the order of the kernel's inputs.
            return np.insert(x.reshape(-1, 4), channel, 0, axis=1).ravel()
        return np.insert(x, channel, 0, axis=2)

    tree = unflatten({name: widen(name, x) for name, x in flatten(networks(model)).items()})
    return Model(variant, tree["generator"], tree.get("discriminator"), model.metadata)
