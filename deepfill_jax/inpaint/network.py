"""A model's generator, compiled once for each of a few sizes."""

import logging
import weakref
from typing import Any

import jax
import numpy as np

from deepfill_jax import compiler, memory, weights
from deepfill_jax.image import composite
from deepfill_jax.inpaint.seamless import match_border
from deepfill_jax.models import Generator, Prediction, predict
from deepfill_jax.models.generator import MULTIPLE

logger = logging.getLogger(__name__)

# Limit of compiled programs of all networks in the process. On a CPU each takes about 180 of the
# 65,530 memory maps that Linux allows a process, and XLA crashes beyond that number.
MAX_PROGRAMS = 100

_networks: "weakref.WeakSet[Network]" = weakref.WeakSet()


class Network:
    """Runs a generator on batches of any size.

    Attributes:
        guided: Whether the generator accepts sketches.
        programs: Compiled programs by `seamless` and the shape of the images.
    """

    def __init__(self, model: weights.Model, *, attention_memory: int | None = None):
        """Loads a model onto the device; see `Inpainter` for `attention_memory`."""
        if attention_memory is None:
            attention_memory = memory.attention_memory()
        self.guided = model.variant.guided
        network = Generator(model.variant, attention_memory=attention_memory)

        def complete(
            seamless: bool, params: Any, image: jax.Array, mask: jax.Array, *sketch: jax.Array
        ) -> Prediction[jax.Array]:
            # `composite` selects; multiplying by 0 as in `mask_out` would keep a NaN in the hole.
            masked = composite(0.0, image, mask)
            prediction = predict(network, params, masked, mask, *sketch)
            if not seamless:
                return prediction
            matched = match_border(prediction.refined, masked, mask)
            return prediction._replace(completed=composite(matched, masked, mask))

        self._params = jax.device_put(model.generator)
        self._complete = jax.jit(
            complete, static_argnames="seamless", compiler_options=compiler.options()
        )
        self.programs: dict[tuple[bool, tuple[int, ...]], jax.stages.Compiled] = {}
        _networks.add(self)

    def __call__(
        self,
        height: int,
        width: int,
        image: np.ndarray,
        *areas: np.ndarray,
        seamless: bool = False,
    ) -> Prediction[jax.Array]:
        """Pads a batch by mirroring its bottom and right edges, and runs the network on it.

        Args:
            height: Height of the padded images, a multiple of 8.
            width: Width of the padded images, a multiple of 8.
            image: Float32 [B, h, w, 3] in [-1, 1].
            areas: The mask and, for a guided network, the sketch, each [B, h, w, 1].
            seamless: Whether `completed` meets the border of the hole without a step in color, see
                `seamless.match_border`.

        Returns:
            The output of each stage, [B, height, width, 3].
        """
        # Image and areas are padded alike, so padding is known where the mirrored pixel is known.
        # Padding marked as known would turn hole pixels into known ones. Padding marked as hole
        # would be one more hole to fill, and attention could not copy from the edge.
        below, right = height - image.shape[1], width - image.shape[2]
        margins = ((0, 0), (0, below), (0, right), (0, 0))
        padded = [np.pad(x, margins, mode="reflect") for x in (image, *areas)]
        program = self.compile(len(image), height, width, seamless=seamless)
        return program(self._params, *(x.astype(np.float32, copy=False) for x in padded))

    def compile(
        self, batch: int, height: int, width: int, *, seamless: bool
    ) -> jax.stages.Compiled:
        """Compiles the network for batches of padded images, unless it has been compiled before."""
        if self.is_compiled(batch, height, width, seamless=seamless):
            return self.programs[seamless, (batch, height, width, 3)]
        if sum(len(network.programs) for network in _networks) >= MAX_PROGRAMS:
            for network in _networks:
                network.programs.clear()
        logger.info("%s.", compiling(batch, height, width))
        channels = (3, 1, 1) if self.guided else (3, 1)
        shapes = [(batch, height, width, count) for count in channels]
        inputs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
        program = self._complete.lower(seamless, self._params, *inputs).compile()
        self.programs[seamless, shapes[0]] = program
        memory.release_freed_memory()
        return program

    def is_compiled(self, batch: int, height: int, width: int, *, seamless: bool) -> bool:
        """Returns whether the network has been compiled for batches of this size."""
        return (seamless, (batch, height, width, 3)) in self.programs


def compiling(batch: int, height: int, width: int) -> str:
    """Returns what users read while the network is compiled for images of this size."""
    windows = f"{batch} windows of " if batch > 1 else ""
    return f"Compiling for {windows}{width}x{height}, once per size"


def compiled_side(side: int) -> int:
    """Rounds a side up to one of a few multiples of 8: 8, ..., 64, 80, ..., 128, 160, ..., 320."""
    step = MULTIPLE << max((-(-side // MULTIPLE)).bit_length() - 3, 0)
    return -(-side // step) * step
