"""Completes pictures of any size with a trained generator: the Python API and the command.

completed = Inpainter.load("model.safetensors")("photo.jpg", "mask.png")

python -m deepfill_jax.inpaint --model FILE --images PATH --masks PATH --output PATH
"""

import argparse
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image, ImageOps

from deepfill_jax import compiler, weights
from deepfill_jax.errors import FailedError, UsageError, run_command
from deepfill_jax.image import composite, to_float, to_uint8
from deepfill_jax.models import Generator, Prediction
from deepfill_jax.models.generator import MULTIPLE

Picture = str | Path | Image.Image | np.ndarray

_JPEG_QUALITY = 95  # Pillow's 75 would show in known pixels.


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

    def __call__(self, image: Picture, mask: Picture) -> np.ndarray:
        """Completes one picture.

        Args:
            image: See `read_image`.
            mask: See `read_mask`; of the image's size. Without a hole, the image comes back.

        Returns:
            uint8 [H, W, 3] RGB, bit for bit the image outside the hole.

        Raises:
            UsageError: One of them cannot be used, or their sizes differ.
        """
        picture, hole = read_image(image), read_mask(mask)
        if picture.shape[:2] != hole.shape[:2]:
            raise UsageError(
                f"The mask is {_size(hole)} pixels, the image {_size(picture)} (width x height); "
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


def _pad(x: np.ndarray) -> np.ndarray:
    """Mirrors [B, H, W, C] at its lower and right edge, up to multiples of `MULTIPLE`."""
    # Image and mask alike, so that padding is known where the pixel that it mirrors is known. All
    # of it known would make true pixels of the hole's; all of it hole would be one more hole to
    # imagine, and keep the attention from copying what is at the edge.
    height, width = x.shape[1:3]
    below, right = -height % MULTIPLE, -width % MULTIPLE
    return np.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")


def read_image(source: Picture) -> np.ndarray:
    """Returns a picture as uint8 [H, W, 3] RGB.

    Args:
        source: A file, which is turned upright by its EXIF orientation; a PIL picture, as it lies;
            or an array that is such a picture already.

    Raises:
        UsageError: The file is no picture, or the array another.
    """
    pixels = _pixels(source, "RGB")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UsageError(
            f"An image array must be uint8 [H, W, 3] in RGB, not {pixels.dtype} {pixels.shape}."
        )
    return pixels


def read_mask(source: Picture) -> np.ndarray:
    """Returns a mask as bool [H, W, 1], true in the hole.

    Values above 127 are the hole; where no value is above 1, those above 0.5 are. So masks of 0
    and 255, of 0 and 1 and of bool mean what they look like, as do greys and probabilities.

    Args:
        source: As for `read_image`, but grey: an array is [H, W] or [H, W, 1], of any numbers.

    Raises:
        UsageError: The file is no picture, or the array another.
    """
    values = _pixels(source, "L")
    if values.ndim == 2:
        values = values[..., np.newaxis]
    is_grey = values.ndim == 3 and values.shape[2] == 1 and values.dtype.kind in "buif"
    if not is_grey or not values.size:
        raise UsageError(
            f"A mask array must be numbers [H, W] or [H, W, 1], not {values.dtype} {values.shape}."
        )
    return values > (127 if values.max() > 1 else 0.5)


def _pixels(source: Picture, mode: str) -> np.ndarray:
    """Reads a file or converts a PIL picture, to a Pillow mode; an array stays as it is."""
    if not isinstance(source, str | Path | Image.Image):
        return np.asarray(source)
    try:
        if isinstance(source, Image.Image):
            return np.asarray(source.convert(mode))
        with Image.open(source) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert(mode))
    except Exception as error:  # Pillow's readers raise many kinds, SyntaxError among them.
        raise UsageError(f"{source} cannot be read as a picture: {error}.") from error


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


class Job(NamedTuple):
    """One picture for the command to complete."""

    image: Path
    mask: Path
    output: Path


def plan(images: Path, masks: Path, output: Path, *, overwrite: bool) -> list[Job]:
    """Finds each picture's mask and a name for its result, and makes the results' folder.

    Args:
        images: A picture, or a folder of pictures; folders in it are not searched.
        masks: One mask for all, or a folder with a mask of each image's name up to the suffix.
        output: A file, if `images` is one and this has a suffix that Pillow writes; otherwise a
            folder for PNG files with the names of the images.
        overwrite: Files that exist may be replaced.

    Raises:
        UsageError: Pictures, masks or a place to write are missing, or results exist already.
    """
    found, found_masks = _by_name(images), _by_name(masks)
    if masks.is_file():
        found_masks = dict.fromkeys(found, masks)
    if missing := [path.name for name, path in found.items() if name not in found_masks]:
        raise UsageError(
            f"{masks} holds no mask for {', '.join(missing)}; a mask has its image's name, with "
            "any suffix."
        )
    is_file = images.is_file() and output.suffix.lower() in _suffixes(Image.SAVE)
    results = {name: output if is_file else output / f"{name}.png" for name in found}
    if existing := [str(path) for path in results.values() if path.exists() and not overwrite]:
        raise UsageError(f"Already there: {', '.join(existing)}; --overwrite replaces files.")
    folder = output.parent if is_file else output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be a folder for the results: {error}.") from error
    return [Job(path, found_masks[name], results[name]) for name, path in found.items()]


def _by_name(path: Path) -> dict[str, Path]:
    """The picture, or the pictures in a folder, sorted, by name without suffix."""
    readable = _suffixes(Image.OPEN)
    in_folder = (file for file in path.glob("[!.]*") if file.suffix.lower() in readable)
    found = [path] if path.is_file() else sorted(in_folder)
    if not found:
        raise UsageError(f"{path} is neither a picture nor a folder that holds pictures.")
    by_name = {file.stem: file for file in found}
    if same := [file.name for file in found if by_name[file.stem] != file]:
        raise UsageError(
            f"{path} holds other files named as {', '.join(same)} up to the suffix, and files are "
            "matched by that name; rename them."
        )
    return by_name


def _suffixes(formats: Collection[str]) -> set[str]:
    """The suffixes of those of Pillow's formats that are in `Image.OPEN` or `Image.SAVE`."""
    return {suffix for suffix, name in Image.registered_extensions().items() if name in formats}


def run(inpainter: Inpainter, jobs: Sequence[Job]) -> None:
    """Completes pictures and prints a line for each.

    Raises:
        FailedError: In the end, if some could not be read or written.
    """
    started = time.monotonic()
    failed = []
    for job in jobs:
        began = time.monotonic()
        try:
            completed = inpainter(job.image, job.mask)
            Image.fromarray(completed).save(job.output, quality=_JPEG_QUALITY)
        except (UsageError, OSError) as error:
            failed.append(str(job.image))
            print(f"error: {job.image} -> {job.output}: {error}", file=sys.stderr)
        else:
            seconds = time.monotonic() - began
            print(f"{job.image} -> {job.output}: {_size(completed)}, {seconds:.1f} s")
    seconds = time.monotonic() - started
    print(f"{len(jobs) - len(failed)} of {len(jobs)} pictures completed in {seconds:.1f} s")
    if failed:
        raise FailedError(f"Not completed: {', '.join(failed)}; see above.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Completes the pictures that the command line names."""
    parser = argparse.ArgumentParser("python -m deepfill_jax.inpaint")
    parser.add_argument("--model", required=True, help="model file (.safetensors)")
    parser.add_argument("--images", type=Path, required=True, help="picture, or folder of them")
    parser.add_argument(
        "--masks", type=Path, required=True, help="mask, white in the hole, or folder, same names"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="file for one picture, or folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    options = parser.parse_args(arguments)

    def command():
        jobs = plan(options.images, options.masks, options.output, overwrite=options.overwrite)
        run(Inpainter.load(options.model), jobs)

    run_command(command)


if __name__ == "__main__":
    main()
