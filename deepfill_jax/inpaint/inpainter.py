"""Inpaints images of any size with a trained generator: the Python API.

completed = Inpainter.load("model.safetensors")("photo.jpg", "mask.png")
"""

import functools
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack, overload

import jax
import numpy as np

from deepfill_jax import compile_cache, weights
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import value_range
from deepfill_jax.inpaint.classical import Classical, Method, find_method
from deepfill_jax.inpaint.inputs import ImageInput, check_batch, for_each
from deepfill_jax.inpaint.network import Network
from deepfill_jax.inpaint.options import Options, Settings
from deepfill_jax.inpaint.windows import Strategy
from deepfill_jax.inpaint.work import Completed, batch_shapes, begin, fill
from deepfill_jax.models import Prediction
from deepfill_jax.models.generator import MULTIPLE
from deepfill_jax.pictures import Source

WORKING_SIZE = 256  # Training size of the published networks, pixels per side.

UNGUIDED = "This model does not accept a sketch; omit the sketch, or use a guided model."

_Image = TypeVar("_Image", bound=ImageInput)  # A list of paths is a list of images.
_Asked = tuple[ImageInput, ImageInput | None, ImageInput | None]  # Image, mask and sketch.


class Inpainter:
    """Inpaints images with the generator of a model, compiled once for each of a few sizes.

    Attributes:
        guided: Whether the model accepts sketches.
        working_size: See `__init__`.
    """

    def __init__(
        self,
        model: Method,
        *,
        working_size: int | None = None,
        attention_memory: int | None = None,
    ):
        """Prepares a model for inpainting.

        Args:
            model: A model with any generator, or a classical method.
            working_size: Side in pixels of the images that the network works best on, a multiple of
                8; None: its training size. Larger windows are scaled down to it.
            attention_memory: Approximate limit in bytes for the attention scores; None: the value
                of `memory.attention_memory`.

        Raises:
            UsageError: The working size is not a positive multiple of 8.
        """
        self.working_size = working_size or model.metadata.get("image_size", WORKING_SIZE)
        if self.working_size < MULTIPLE or self.working_size % MULTIPLE:
            raise UsageError(f"The working size must be a multiple of 8, not {self.working_size}.")
        self._network: Network | Classical = (
            Network(model, attention_memory=attention_memory)
            if isinstance(model, weights.Model)
            else model
        )
        self.guided = model.guided
        self._replace_detail = model.metadata.get("replace_detail", False)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        working_size: int | None = None,
        attention_memory: int | None = None,
        cache: bool | str | Path = False,
    ) -> Self:
        """Loads a model.

        Args:
            source: Any model that `deepfill convert` reads: a name (`deepfill models` lists them),
                a URL, a model file, the folder of a training run, a `.pth` file of MMagic or
                nipponjo, or a TF1 checkpoint.
            working_size: See `Inpainter`.
            attention_memory: See `Inpainter`.
            cache: Keep compiled programs on disk, so that later processes start faster: in the
                user's cache folder, which the commands use too, or in a folder of your own. It is
                False by default, because the cache is a setting of JAX for the whole process and
                thus of the program that uses this library. See `compile_cache.enable`.

        Raises:
            UsageError, RunError: The model cannot be read, see `convert.sources.read`.
            UsageError: An option cannot be used.
        """
        if cache:
            compile_cache.enable(None if cache is True else cache)
        model, _ = find_method(source)
        return cls(model, working_size=working_size, attention_memory=attention_memory)

    @overload
    def __call__(
        self,
        image: ImageInput,
        mask: ImageInput | None = None,
        *,
        sketch: ImageInput | None = None,
        **options: Unpack[Options],
    ) -> np.ndarray: ...

    @overload
    def __call__(
        self,
        image: np.ndarray | jax.Array,
        mask: Sequence[ImageInput] | ImageInput | None = None,
        *,
        sketch: Sequence[ImageInput | None] | ImageInput | None = None,
        **options: Unpack[Options],
    ) -> np.ndarray: ...

    @overload
    def __call__(
        self,
        image: list[_Image] | tuple[_Image, ...],
        mask: Sequence[ImageInput] | ImageInput | None = None,
        *,
        sketch: Sequence[ImageInput | None] | ImageInput | None = None,
        **options: Unpack[Options],
    ) -> list[np.ndarray]: ...

    def __call__(
        self,
        image: Any,
        mask: Any = None,
        *,
        sketch: Any = None,
        **options: Unpack[Options],
    ) -> np.ndarray | list[np.ndarray]:
        """Inpaints one image, or several images of any sizes.

        Args:
            image: A path, encoded bytes, a binary file object or a PIL image, see `pictures.read`;
                a `Picture` that `pictures.read` returned; an array [H, W], [H, W, 1] (grey),
                [H, W, 3] (RGB) or [H, W, 4] (RGBA), of uint8, uint16 or floats in [-1, 1] (see
                `value_range`); a list of these; or a batch [B, H, W, C]. A PIL image whose mask is
                an array is not turned by its EXIF orientation.
            mask: A mask of the image's size: a file or PIL image, see `pictures.read_mask`, or an
                array, see `pictures.hole_of_values`. Several images share one mask, or have a list
                or batch with one mask each. None: pixels that are not fully opaque are the hole;
                partly transparent pixels are blended with their completion.
            sketch: Lines that guide the completion (guided models only, section 3.3 of the paper):
                white on black, or one color on transparency, read like a mask. Only lines in the
                hole count. None: no lines.
            options: Keyword arguments, which `options.Settings` explains: how large images are
                processed (strategy, budget), the completion (detail, seamless) and its edge
                (dilate, feather), how masks are read (mask_threshold, mask_orientation,
                check_mask), and black and white of images of floats (value_range).

        Returns:
            [H, W, 3] for a file or PIL image. For a `Picture`, pixels like its own, for
            `pictures.write`. For an array, the same shape and type, without alpha if alpha was the
            mask. A list for a list, a batch for a batch. Pixels outside the (dilated) hole are bit
            for bit those of the image.

        Raises:
            UsageError: An input or option cannot be used, or sizes differ.

        Warns:
            UserWarning: Floats seem to be in [0, 1], or the orientation of a mask is ambiguous.
        """
        settings = Settings(**options)
        is_batch = isinstance(image, np.ndarray | jax.Array) and image.ndim == 4
        if not is_batch and (isinstance(image, Source) or not isinstance(image, list | tuple)):
            return self._complete([(image, mask, sketch)], settings)[0].pixels
        masks, sketches = for_each(mask, len(image)), for_each(sketch, len(image))
        for name, given in (("masks", masks), ("sketches", sketches)):
            if len(image) != len(given):
                raise UsageError(
                    f"There are {len(image)} images, but {len(given)} {name}; pass one for all "
                    "images, or one for each image."
                )
        asked = list(zip(image, masks, sketches, strict=True))
        completed = [one.pixels for one in self._complete(asked, settings)]
        if is_batch:
            return np.stack(completed) if completed else np.array(image)
        return completed

    def complete(
        self,
        image: ImageInput,
        mask: ImageInput | None = None,
        sketch: ImageInput | None = None,
        **options: Unpack[Options],
    ) -> Completed:
        """Inpaints one image like `__call__`; also returns strategy, scale and megapixels."""
        return self._complete([(image, mask, sketch)], Settings(**options))[0]

    def _complete(self, asked: Sequence[_Asked], settings: Settings) -> list[Completed]:
        if not self.guided and any(sketch is not None for _, _, sketch in asked):
            raise UsageError(UNGUIDED)
        start = functools.partial(
            begin,
            settings=settings,
            working_size=self.working_size,
            guided=self.guided,
            replace_detail=self._replace_detail,
        )
        works = [start(*one) for one in asked]
        for message in dict.fromkeys(message for work in works for message in work.warnings):
            warnings.warn(message, stacklevel=3)  # Points at the caller of the public method.
        run = functools.partial(self._run, seamless=settings.seamless)
        fill([work.canvas for work in works], run)
        return [work.completed() for work in works]

    def predict(
        self, image: np.ndarray, mask: np.ndarray, sketch: np.ndarray | None = None
    ) -> Prediction[np.ndarray]:
        """Inpaints a batch of images of one size, and returns the output of each stage.

        Args:
            image: Float [B, H, W, 3] RGB in [-1, 1], used as float32. Its pixels in the
                hole have no influence.
            mask: [B, H, W, 1], one mask per image; values above 0.5 are the hole.
            sketch: [B, H, W, 1], values above 0.5 are lines (guided models only). Only lines in the
                hole count. None: no lines.

        Returns:
            Float32 numpy arrays [B, H, W, 3] in [-1, 1]. `completed` is bit for bit the image
            outside the hole.

        Raises:
            UsageError: A shape, type or range is wrong, or the model does not accept a sketch.
        """
        if sketch is not None and not self.guided:
            raise UsageError(UNGUIDED)
        image, mask = np.asarray(image), np.asarray(mask)
        sketch = np.zeros_like(mask) if sketch is None else np.asarray(sketch)
        hole = check_batch(image, mask, sketch)
        if value_range.is_probably_0_to_1(image, hole):
            warnings.warn(value_range.PREDICT_WARNING, stacklevel=2)
        height, width = image.shape[1:3]
        sides = (-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
        areas = [hole] + ([(sketch > 0.5) & hole] if self.guided else [])
        prediction = self._run(*sides, image.astype(np.float32), *areas)
        return Prediction(*(np.asarray(x)[:, :height, :width] for x in prediction))

    def warm_up(
        self,
        sizes: Iterable[tuple[int, int]],
        *,
        strategy: Strategy = "auto",
        seamless: bool = True,
    ) -> None:
        """Compiles the network for images of some sizes, so that the first of them is quick.

        An image of more than one window may need further programs: see `work.batch_shapes`.

        Args:
            sizes: (height, width) of images in pixels.
            strategy: The strategy with which the images will be inpainted, as for `__call__`.
            seamless: The value with which the images will be inpainted, as for `__call__`.

        Raises:
            UsageError: A side is not positive, or the strategy does not exist.
        """
        settings = Settings(strategy=strategy, seamless=seamless)
        for size in sizes:
            for shape in batch_shapes(*size, settings.strategy, self.working_size):
                self._network.compile(*shape, seamless=seamless)

    def _run(
        self, height: int, width: int, *inputs: np.ndarray, seamless: bool = False
    ) -> Prediction[Any]:
        return self._network(height, width, *inputs, seamless=seamless)
