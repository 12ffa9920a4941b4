"""A model's generator, compiled once for each of a few sizes."""

import weakref

import jax
import numpy as np

from deepfill_jax import compiler, memory, weights
from deepfill_jax.image import composite
from deepfill_jax.models import Generator, Prediction
from deepfill_jax.models.generator import MULTIPLE

# Programs that all networks of the process keep at once. On a CPU each takes about 180 memory maps
# of the 65,530 that Linux gives a process, and beyond those XLA crashes.
MAX_PROGRAMS = 100

_networks: "weakref.WeakSet[Network]" = weakref.WeakSet()


class Network:
    """Runs a generator on batches of any size.

    Attributes:
        guided: Whether it takes sketches.
        programs: Compiled for shapes of images.
    """

    def __init__(self, model: weights.Model, *, attention_memory: int | None = None):
        """Takes a model; `attention_memory` is as of `Inpainter`."""
        if attention_memory is None:
            attention_memory = memory.attention_memory()
        self.guided = model.variant.guided
        network = Generator(model.variant, attention_memory=attention_memory)

        def predict(params, image, mask, *sketch):
            # Selected, not multiplied by 0 as in `mask_out`: a NaN in the hole must not get out.
            return network.apply({"params": params}, composite(0.0, image, mask), mask, *sketch)

        self._params = jax.device_put(model.generator)
        self._predict = jax.jit(predict, compiler_options=compiler.options())
        self.programs: dict[tuple[int, ...], jax.stages.Compiled] = {}
        _networks.add(self)

    def __call__(
        self, height: int, width: int, image: np.ndarray, *areas: np.ndarray
    ) -> Prediction[jax.Array]:
        """Runs the network on a batch that is mirrored at its lower and right edge to a size.

        Args:
            height: Of the mirrored images, a multiple of 8.
            width: The same.
            image: Float32 [B, h, w, 3] in [-1, 1].
            areas: [B, h, w, 1] each: the mask and, of a guided network, the sketch.

        Returns:
            Arrays [B, height, width, 3].
        """
        # Image and areas alike, so that padding is known where the pixel that it mirrors is known.
        # All of it known would make true pixels of the hole's; all of it hole would be one more
        # hole to imagine, and keep the attention from copying what is at the edge.
        below, right = height - image.shape[1], width - image.shape[2]
        margins = ((0, 0), (0, below), (0, right), (0, 0))
        image, *areas = (np.pad(x, margins, mode="reflect") for x in (image, *areas))
        arguments = self._params, image, *(x.astype(np.float32) for x in areas)
        program = self.programs.get(image.shape)
        if program is None:
            if sum(len(network.programs) for network in _networks) >= MAX_PROGRAMS:
                for network in _networks:
                    network.programs.clear()
            program = self.programs[image.shape] = self._predict.lower(*arguments).compile()
            memory.release_freed_memory()
        return program(*arguments)

    def is_compiled(self, batch: int, height: int, width: int) -> bool:
        """Whether the network has been compiled for batches of this size."""
        return (batch, height, width, 3) in self.programs


def compiled_side(side: int) -> int:
    """The next of a few sides, multiples of 8: 8, 16, ..., 64, 80, ..., 128, 160, ..., 256, 320."""
    step = MULTIPLE << max((-(-side // MULTIPLE)).bit_length() - 3, 0)
    return -(-side // step) * step
