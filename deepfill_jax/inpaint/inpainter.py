"""Completes pictures of any size with a trained generator: the Python API.

completed = Inpainter.load("model.safetensors")("photo.jpg", "mask.png")
"""

import collections
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from deepfill_jax import compiler, memory, weights
from deepfill_jax.errors import UsageError
from deepfill_jax.image import composite
from deepfill_jax.inpaint import mask_edges
from deepfill_jax.inpaint.canvas import Canvas, blend
from deepfill_jax.inpaint.inputs import Inputs, Picture, read_area, read_inputs
from deepfill_jax.inpaint.windows import STRATEGIES, Window, choose_strategy, find_windows
from deepfill_jax.models import Generator, Prediction
from deepfill_jax.models.generator import MULTIPLE

WORKING_SIZE = 256  # Pixels a side that the published networks are trained at.
BATCH_PIXELS = 8 * 256**2  # That are filled at once, or one window, if it is larger.
# Kept at once. On a CPU each takes about 180 memory maps of the 65,530 that Linux gives a process,
# and beyond those XLA crashes.
MAX_PROGRAMS = 100

UNGUIDED = (
    "This model takes no sketch: it is not guided; leave the sketch out, or take one that is."
)


class Inpainter:
    """A model's generator, compiled once for each of a few sizes.

    Attributes:
        guided: Whether it takes sketches of what shall be in the hole.
        working_size: See below.
    """

    def __init__(
        self,
        model: weights.Model,
        *,
        working_size: int | None = None,
        attention_memory: int | None = None,
    ):
        """Takes a model.

        Args:
            model: With any generator.
            working_size: Side of the pictures that the network works best on, a multiple of 8; if
                None, that it was trained at. Larger windows are scaled down to it.
            attention_memory: About how many bytes attention's scores may take; if None, what
                `memory.attention_memory` says.

        Raises:
            UsageError: The working size is no positive multiple of 8.
        """
        self.working_size = working_size or model.metadata.get("image_size", WORKING_SIZE)
        if self.working_size < MULTIPLE or self.working_size % MULTIPLE:
            raise UsageError(f"The working size must be a multiple of 8, not {self.working_size}.")
        if attention_memory is None:
            attention_memory = memory.attention_memory()
        self.guided = model.variant.guided
        network = Generator(model.variant, attention_memory=attention_memory)

        def predict(params, image, mask, *sketch):
            # Selected, not multiplied by 0 as in `mask_out`: a NaN in the hole must not get out.
            return network.apply({"params": params}, composite(0.0, image, mask), mask, *sketch)

        self._params = jax.device_put(model.generator)
        self._predict = jax.jit(predict, compiler_options=compiler.options())
        self._programs: dict[tuple[int, ...], jax.stages.Compiled] = {}  # By shapes of images.

    @classmethod
    def load(cls, name_or_path: str | Path, **options: int | None) -> "Inpainter":
        """Reads a model by name (`deepfill inspect` lists them) or file; takes the options above.

        Raises:
            UsageError: It is no model file, see `weights.load`, or an option cannot be used.
        """
        return cls(weights.load(name_or_path), **options)

    def __call__(
        self,
        image: Picture | Sequence[Picture],
        mask: Picture | Sequence[Picture] | None = None,
        *,
        sketch: Picture | Sequence[Picture | None] | None = None,
        strategy: str = "auto",
        dilate: int = 0,
        feather: int = 0,
    ) -> np.ndarray | list[np.ndarray]:
        """Completes a picture, or several of any sizes.

        Args:
            image: A file or PIL picture, see `pictures.read`; an array [H, W], [H, W, 1] grey,
                [H, W, 3] RGB or [H, W, 4] with opacity, of uint8, uint16 or floats in [-1, 1]; a
                list of these; or a batch of arrays [B, H, W, C].
            mask: Of the image's size: a file or PIL picture, see `pictures.read_mask`; or an array
                for `pictures.hole_of_values`. As many as there are images. None: the hole is where
                the image's opacity is below one half.
            sketch: Of guided models, lines that the fill shall follow (section 3.3), read as masks
                are: white on black, or one colour on transparency. Only those in the hole count.
                None: no lines.
            strategy: How large pictures are completed: "auto", see `windows.choose_strategy`; or
                "original", "resize" or "crop", see `windows.find_windows`.
            dilate: Pixels by which the hole is widened.
            feather: Pixels, at most `dilate`, over which the fill blends with the image in what
                the hole was widened by.

        Returns:
            [H, W, 3] of a file or PIL picture; of an array, its shape and type, without opacity if
            that was the mask; a list of a list, a batch of a batch. Bit for bit the image outside
            the (widened) hole.

        Raises:
            UsageError: Something cannot be used, or sizes differ.
        """
        if strategy not in STRATEGIES:
            raise UsageError(f"strategy={strategy!r} must be one of {', '.join(STRATEGIES)}.")
        if not 0 <= feather <= dilate:
            raise UsageError(
                f"feather={feather} must be from 0 to dilate={dilate}: it blends in the rim by "
                "which the hole is widened."
            )
        is_batch = isinstance(image, np.ndarray | jax.Array) and image.ndim == 4
        if not is_batch and not isinstance(image, list | tuple):
            return self._complete([self._ask(image, mask, sketch)], strategy, dilate, feather)[0]
        masks, sketches = ([None] * len(image) if x is None else x for x in (mask, sketch))
        for name, given in (("masks", masks), ("sketches", sketches)):
            if len(image) != len(given):
                raise UsageError(f"There are {len(image)} images, but {len(given)} {name}.")
        asked = [self._ask(*one) for one in zip(image, masks, sketches, strict=True)]
        completed = self._complete(asked, strategy, dilate, feather)
        return np.stack(completed) if is_batch and completed else completed

    def choose(self, mask: np.ndarray, strategy: str = "auto") -> str:
        """Returns the strategy that `strategy` stands for with a mask, bool [H, W, 1]."""
        return choose_strategy(mask, self.working_size) if strategy == "auto" else strategy

    def _complete(
        self, asked: Sequence[Inputs], strategy: str, dilate: int, feather: int
    ) -> list[np.ndarray]:
        dilated = [mask_edges.dilate(one.hole, dilate) for one in asked]
        canvases = []
        for one, hole in zip(asked, dilated, strict=True):
            windows = find_windows(hole, self.choose(hole, strategy), self.working_size)
            canvases.append(Canvas(one.pixels, hole, windows, one.sketch))
        while ready := [(canvas, w) for canvas in canvases for w in canvas.pop_independent()]:
            self._fill(ready)
        completed = []
        for one, hole, canvas in zip(asked, dilated, canvases, strict=True):
            pixels = canvas.pixels
            if feather:
                pixels = blend(one.pixels, pixels, mask_edges.feather(one.hole, hole, feather))
            completed.append(one.shaped(pixels))
        return completed

    def _fill(self, ready: Sequence[tuple[Canvas, Window]]) -> None:
        """Fills windows, those of one compiled size in batches."""
        by_size = collections.defaultdict(list)
        for canvas, window in ready:
            sides = _compiled_side(window.height), _compiled_side(window.width)
            by_size[(*sides, window.height, window.width)].append((canvas, window))
        for (height, width, *_), group in by_size.items():
            most = max(BATCH_PIXELS // (height * width), 1)
            for start in range(0, len(group), most):
                batch = group[start : start + most]
                seen = [canvas.read_window(window) for canvas, window in batch]
                # Batches have 1, 2, 4, ... images, as each size is compiled: the last is repeated.
                seen += seen[-1:] * ((1 << (len(seen) - 1).bit_length()) - len(seen))
                inputs = (np.stack(x) for x in zip(*seen, strict=True))
                completed = np.asarray(self._run(height, width, *inputs).completed)
                for (canvas, window), filled in zip(batch, completed, strict=False):
                    canvas.paste(window, filled[: window.height, : window.width])

    def _ask(self, image: Picture, mask: Picture | None, sketch: Picture | None) -> Inputs:
        """Reads one picture and what belongs to it; guided, without sketch an empty one."""
        asked = read_inputs(image, mask)
        if sketch is None:
            lines = np.zeros_like(asked.hole) if self.guided else None
            return asked._replace(sketch=lines)
        if not self.guided:
            raise UsageError(UNGUIDED)
        return asked._replace(sketch=read_area("sketch", sketch, asked.pixels))

    def predict(
        self, image: np.ndarray, mask: np.ndarray, sketch: np.ndarray | None = None
    ) -> Prediction:
        """Completes a batch of images of one size, and returns what each stage made of them.

        Args:
            image: Float [B, H, W, 3] RGB in [-1, 1], used as float32. What it holds under the mask
                has no influence.
            mask: [B, H, W, 1], one for each image; above 0.5 is the hole.
            sketch: Of guided models: [B, H, W, 1], above 0.5 is a line. Only those in the hole
                count. None: no lines.

        Returns:
            Float32 numpy arrays [B, H, W, 3] in [-1, 1]. `completed` is bit for bit the image
            outside the hole.

        Raises:
            UsageError: Shapes or types are others, or the model takes no sketch.
        """
        if sketch is not None and not self.guided:
            raise UsageError(UNGUIDED)
        image, mask = np.asarray(image), np.asarray(mask)
        sketch = np.zeros_like(mask) if sketch is None else np.asarray(sketch)
        fits = image.ndim == 4 and image.shape[3] == 3 and mask.shape == (*image.shape[:3], 1)
        fits &= sketch.shape == mask.shape
        if not fits or not image.size or not np.issubdtype(image.dtype, np.floating):
            raise UsageError(
                "predict takes a float image [B, H, W, 3] in [-1, 1] and a mask [B, H, W, 1], not "
                f"{image.dtype} {image.shape} and {mask.dtype} {mask.shape}; a sketch has the "
                "mask's shape."
            )
        height, width = image.shape[1:3]
        sides = (-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
        areas = [mask > 0.5] + ([(sketch > 0.5) & (mask > 0.5)] if self.guided else [])
        prediction = self._run(*sides, image.astype(np.float32), *areas)
        return Prediction(*(np.asarray(x)[:, :height, :width] for x in prediction))

    def _run(self, height: int, width: int, image: np.ndarray, *areas: np.ndarray) -> Prediction:
        """Runs the network on a batch that is mirrored at its lower and right edge to a size.

        The areas are the mask and, of a guided network, the sketch.
        """
        # Image and areas alike, so that padding is known where the pixel that it mirrors is known.
        # All of it known would make true pixels of the hole's; all of it hole would be one more
        # hole to imagine, and keep the attention from copying what is at the edge.
        below, right = height - image.shape[1], width - image.shape[2]
        margins = ((0, 0), (0, below), (0, right), (0, 0))
        image, *areas = (np.pad(x, margins, mode="reflect") for x in (image, *areas))
        arguments = self._params, image, *(x.astype(np.float32) for x in areas)
        if image.shape not in self._programs:
            if len(self._programs) == MAX_PROGRAMS:
                self._programs.clear()
            self._programs[image.shape] = self._predict.lower(*arguments).compile()
            memory.release_freed_memory()
        return self._programs[image.shape](*arguments)


def _compiled_side(side: int) -> int:
    """The next of a few sides, multiples of 8: 8, 16, ..., 64, 80, ..., 128, 160, ..., 256, 320."""
    step = MULTIPLE << max((-(-side // MULTIPLE)).bit_length() - 3, 0)
    return -(-side // step) * step
