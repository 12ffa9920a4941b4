"""Completes pictures of any size with a trained generator: the Python API.

completed = Inpainter.load("model.safetensors")("photo.jpg", "mask.png")
"""

from pathlib import Path

import jax
import numpy as np

from deepfill_jax import compiler, weights
from deepfill_jax.errors import UsageError
from deepfill_jax.image import composite, to_float, to_uint8
from deepfill_jax.models import Generator, Prediction
from deepfill_jax.models.generator import MULTIPLE
from deepfill_jax.pictures import Source, hole_of_values, read, read_mask, size


class Inpainter:
    """A model's generator, compiled once for each padded size that it meets."""

    def __init__(self, model: weights.Model):
        network = Generator(model.variant)

        def predict(params, image, mask):
            # Selected, not multiplied by 0 as in `mask_out`: a NaN in the hole must not get out.
            return network.apply({"params": params}, composite(0.0, image, mask), mask)

        self._params = jax.device_put(model.generator)
        self._predict = jax.jit(predict, compiler_options=compiler.options())

    @classmethod
    def load(cls, path: str | Path) -> "Inpainter":
        """Reads a model file; raises the `UsageError` of `weights.load` if it is not one."""
        return cls(weights.load(path))

    def __call__(self, image: Source | np.ndarray, mask: Source | np.ndarray) -> np.ndarray:
        """Completes one picture.

        Args:
            image: See `pictures.read`; or uint8 [H, W, 3] RGB.
            mask: See `pictures.read_mask`; or an array for `pictures.hole_of_values`; of the
                image's size. Without a hole, the image comes back.

        Returns:
            uint8 [H, W, 3] RGB, bit for bit the image outside the hole.

        Raises:
            UsageError: One of them cannot be used, or their sizes differ.
        """
        picture = _rgb(read(image).pixels if isinstance(image, Source) else image)
        hole = read_mask(mask) if isinstance(mask, Source) else hole_of_values(mask)
        if picture.shape[:2] != hole.shape[:2]:
            raise UsageError(
                f"The mask is {size(hole)} pixels, the image {size(picture)} (width x height); "
                "a mask needs its image's size."
            )
        if not hole.any():
            return picture.copy()
        prediction = self.predict(to_float(picture[np.newaxis]), hole[np.newaxis])
        return to_uint8(prediction.completed[0])  # Float32 holds 8 bits with room to spare.

    def predict(self, image: np.ndarray, mask: np.ndarray) -> Prediction:
        """Completes a batch of images of one size, and returns what each stage made of them.

        Args:
            image: Float [B, H, W, 3] RGB in [-1, 1], used as float32. What it holds under the mask
                has no influence.
            mask: [B, H, W, 1], one for each image; above 0.5 is the hole.

        Returns:
            Float32 numpy arrays [B, H, W, 3] in [-1, 1]. `completed` is bit for bit the image
            outside the hole.

        Raises:
            UsageError: Shapes or types are others.
        """
        image, mask = np.asarray(image), np.asarray(mask)
        fits = image.ndim == 4 and image.shape[3] == 3 and mask.shape == (*image.shape[:3], 1)
        if not fits or not image.size or not np.issubdtype(image.dtype, np.floating):
            raise UsageError(
                "predict takes a float image [B, H, W, 3] in [-1, 1] and a mask [B, H, W, 1], not "
                f"{image.dtype} {image.shape} and {mask.dtype} {mask.shape}."
            )
        height, width = image.shape[1:3]
        padded = (_pad(x.astype(np.float32)) for x in (image, mask > 0.5))
        prediction = self._predict(self._params, *padded)
        return Prediction(*(np.asarray(x)[:, :height, :width] for x in prediction))


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """Grey becomes RGB; uint8 [H, W, 3] stays."""
    pixels = np.asarray(pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UsageError(
            f"An image array must be uint8 [H, W, 3] in RGB, not {pixels.dtype} {pixels.shape}."
        )
    return pixels


def _pad(x: np.ndarray) -> np.ndarray:
    """Mirrors [B, H, W, C] at its lower and right edge, up to multiples of `MULTIPLE`."""
    # Image and mask alike, so that padding is known where the pixel that it mirrors is known. All
    # of it known would make true pixels of the hole's; all of it hole would be one more hole to
    # imagine, and keep the attention from copying what is at the edge.
    height, width = x.shape[1:3]
    below, right = -height % MULTIPLE, -width % MULTIPLE
    return np.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")
