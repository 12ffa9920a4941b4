"""An unguided model as a guided one, to train it with sketches."""

import dataclasses

import numpy as np

from deepfill_jax.tensors import expected_tensors, flatten, unflatten
from deepfill_jax.weights import Model, networks


def with_sketch_channels(model: Model) -> Model:
    """The same function by guided networks: their kernels for the sketch are 0.

    Adam's moments are left out, as new weights in old moments would move too fast.
    """
    variant = dataclasses.replace(model.variant, guided=True)
    expected = expected_tensors(variant, discriminator=model.discriminator is not None)

    def widen(name: str, x: np.ndarray) -> np.ndarray:
        if x.shape == expected[name]:
            return x
        # The picture's fourth channel in the generator, the last one in the discriminator.
        place = 3 if name.startswith("generator/") else 4
        if name.endswith("/v"):  # In the order of the kernel's inputs.
            return np.insert(x.reshape(-1, 4), place, 0, axis=1).ravel()
        return np.insert(x, place, 0, axis=2)

    tree = unflatten({name: widen(name, x) for name, x in flatten(networks(model)).items()})
    return Model(variant, tree["generator"], tree.get("discriminator"), model.metadata)
