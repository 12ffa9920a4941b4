"""Checks of the training data: images, masks and batches."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict
from PIL import Image

from deepfill_jax import masks
from deepfill_jax.data import sources, streams
from deepfill_jax.data.files import Files
from deepfill_jax.data.sources import Source
from deepfill_jax.doctor.case import ERROR, OK, WARNING, Case, Finding, SkippedError, need
from deepfill_jax.evaluate import scoring
from deepfill_jax.image import composite
from deepfill_jax.inpaint import classical

SIZE_SAMPLES = 512  # Images whose sizes are read.
COMPARED_IMAGES = 2048  # Validation images that are searched for among the training images.
FINGERPRINT_BYTES = 65536  # Leading bytes of a file that are compared if lengths are equal.
MAX_ASPECT_RATIO = 1.5  # Longer by shorter side from which resizing to a square distorts too much.
MASK_SAMPLES = 200  # Masks whose areas are measured.
MAX_MEAN_AREA = 0.6  # Mean hole area above which mask files are probably inverted.
MIN_MEAN_AREA = 0.02  # Mean hole area below which the hole contributes little to the loss.
GRID_ROWS = 8  # Examples shown in batch.png.


def training_pictures(case: Case) -> Iterator[Finding]:
    """Checks whether training images are readable and large enough, and counts unreadable files."""
    source = streams.open_source(case.config)
    case.source = source
    yield _count(source)
    yield judge_sizes(sources.sizes(source, SIZE_SAMPLES), case.config)


def validation_pictures(case: Case) -> Iterator[Finding]:
    """Checks whether validation images are readable and not among the training images."""
    source = streams.open_source(case.config, validation=True)
    yield _count(source)
    training_source = need(case.source, "source")
    if source.name == training_source.name:
        text = "config.data.val_source is config.data.source"
    elif shared := _shared(source, training_source):
        text = f"{shared} of {min(len(source), COMPARED_IMAGES)} are training images too"
    else:
        return
    yield Finding(
        WARNING,
        f"{text}: scores will not predict results on new images; use other images for validation.",
    )


def _count(source: Source) -> Finding:
    bad = source.left_out if isinstance(source, Files) else ()
    count = len(source.readable) if isinstance(source, Files) else len(source)
    text = f"{source.name}: {count:,} images"
    if bad:
        total = count + len(bad)
        return Finding(
            WARNING,
            f"{text}; {len(bad)} of {total:,} files cannot be read or have transparent pixels, and "
            f"are skipped, the first is {bad[0]}: delete or replace them.",
        )
    return Finding(OK, f"{text}, all readable.")


def judge_sizes(sizes: np.ndarray, config: ConfigDict) -> Finding:
    """Judges whether image files of these sizes, int [N, 2], fit the config's image size."""
    crop, size = config.data.crop_size, config.image_size
    shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
    small = np.mean(shorter < (crop or size))
    stretched = np.mean(longer > MAX_ASPECT_RATIO * shorter)
    text = f"{len(sizes)} images measured, shorter sides {shorter.min()} to {shorter.max()} px"
    if small and crop and config.data.enlarge:
        problem = f"{small:.0%} are enlarged to config.data.crop_size={crop} and will be blurred"
        remedy = "lower it or use larger images"
    elif small and crop:
        problem = f"{small:.0%} are below config.data.crop_size={crop} and will be stretched to fit"
        remedy = f"lower it to {shorter.min()}, or set config.data.enlarge=True"
    elif small:
        problem = f"{small:.0%} are below config.image_size={size} and will be blurred"
        remedy = "lower it or use larger images"
    elif stretched and not crop:
        problem = f"{stretched:.0%} are far from square, and config.data.crop_size=0 distorts them"
        remedy = f"set config.data.crop_size={shorter.min()} to use square crops"
    elif crop and (whole := sources.whole_share(sizes, crop)) > streams.MAX_WHOLE_SHARE:
        problem = (
            f"{whole:.0%} are not larger than config.data.crop_size={crop}: crops are whole images"
        )
        remedy = "use larger images, or set it to 0 if this is intended"
    elif crop and crop < size:
        problem = f"crops of config.data.crop_size={crop} px are enlarged to {size}"
        remedy = f"set config.data.crop_size={size} or more"
    else:
        return Finding(OK, f"{text}.")
    return Finding(WARNING, f"{text}; {problem}: {remedy}.")


def _shared(validation: Source, training: Source) -> int:
    """Counts validation files whose content is among the training files, under any name."""
    if not (isinstance(validation, Files) and isinstance(training, Files)):
        return 0
    compared = validation.readable[:COMPARED_IMAGES]
    lengths = {os.path.getsize(path) for path in compared}
    candidates = [path for path in training.readable if os.path.getsize(path) in lengths]
    fingerprints = {_fingerprint(path) for path in candidates}
    return sum(_fingerprint(path) in fingerprints for path in compared)


def _fingerprint(path: str) -> tuple[int, bytes]:
    with open(path, "rb") as file:
        return os.path.getsize(path), hashlib.blake2b(file.read(FINGERPRINT_BYTES)).digest()


def tensorflow_leaves_gpus(case: Case) -> Iterator[Finding]:
    """Checks that TensorFlow, which only reads images, does not take GPU memory from JAX."""
    del case
    with contextlib.suppress(RuntimeError):  # TensorFlow has initialised the GPUs already.
        sources.hide_gpus()
    visible = tf.config.get_visible_devices("GPU")
    if visible:
        text = f"TensorFlow uses {len(visible)} GPUs that JAX needs"
        yield Finding(ERROR, f"{text}; pip uninstall tensorflow, pip install tensorflow-cpu.")
    else:
        yield Finding(OK, "TensorFlow does not use a GPU.")


def hole_masks(case: Case) -> Iterator[Finding]:
    """Checks whether the hole is white, and how large the holes are."""
    config, size = case.config.masks, case.config.image_size
    if config.weights.folder > 0:
        draw = masks.sampler(
            {"folder": 1.0},
            min_area=config.min_area,
            max_area=config.max_area,
            folder=config.folder,
        )
        yield judge_areas(f"files of {config.folder}", _areas(draw, size), from_files=True)
    if any(weight > 0 for kind, weight in config.weights.items() if kind != "folder"):
        drawn = config.copy_and_resolve_references()
        drawn.weights.folder = 0.0
        kinds = ", ".join(kind for kind, weight in drawn.weights.items() if weight > 0)
        yield judge_areas(kinds, _areas(masks.sampler(**drawn), size), from_files=False)


def _areas(draw: masks.DrawMask, size: int) -> np.ndarray:
    """Returns the share of the image in the hole for `MASK_SAMPLES` masks."""
    rng = np.random.default_rng(0)
    return np.array([draw(rng, size, size).mean() for _ in range(MASK_SAMPLES)])


def judge_areas(kinds: str, areas: Sequence[float] | np.ndarray, *, from_files: bool) -> Finding:
    """Judges hole areas, given as shares of the image.

    Args:
        kinds: Source of the masks, for the message.
        areas: Shares in [0, 1].
        from_files: Whether the masks are files, which may be inverted.
    """
    counts, _ = np.histogram(areas, bins=10, range=(0, 1))
    parts = [f"{10 * i}-{10 * i + 10} %: {n}" for i, n in enumerate(counts) if n]
    mean = float(np.mean(areas))
    text = f"{kinds}: the hole is {mean:.0%} of an image on average; by area, {', '.join(parts)}"
    full = int(np.sum(np.equal(areas, 1)))
    if mean > MAX_MEAN_AREA and from_files:
        remedy = "they seem inverted: the hole must be white; invert the files, or use others"
        return Finding(ERROR, f"{text}; {remedy}.")
    if mean > MAX_MEAN_AREA:
        return Finding(WARNING, f"{text}; this leaves few known pixels: choose other masks.")
    if full:
        problem = f"{full} of {len(areas)} leave no known pixels"
        return Finding(WARNING, f"{text}; {problem}: remove those files.")
    if mean < MIN_MEAN_AREA:
        return Finding(WARNING, f"{text}; holes this small teach little: choose other masks.")
    return Finding(OK, f"{text}.")


def batch(case: Case) -> Iterator[Finding]:
    """Makes the first training batch and writes it to an image file."""
    batches = streams.training_batches(case.config, need(case.source, "source"))(0)
    case.batch = next(batches)
    case.batches = batches
    if not case.folder.is_dir():
        raise SkippedError("a batch was made, but it cannot be shown without a workdir, see above.")
    path = case.folder / "batch.png"
    try:
        Image.fromarray(picture(case.batch)).save(path)
    except OSError as error:
        yield Finding(ERROR, f"{path} cannot be written ({error.strerror}).")
        return
    rows = min(GRID_ROWS, len(case.batch["image"]))
    last = "mask, with the sketch in black" if "sketch" in case.batch else "mask"
    yield Finding(OK, f"Look at {path}: {rows} examples as masked image, image and {last}.")


def picture(batch: dict[str, np.ndarray]) -> np.ndarray:
    """Arranges examples in rows of masked image, image and mask.

    The hole is white, and lines of a sketch are black.

    Args:
        batch: "image" uint8 [B, H, W, 3], "mask" and, if guided, "sketch" uint8 [B, H, W, 1] of 0
            and 1.

    Returns:
        uint8 [rows * H, 3 * W, 3] with up to `GRID_ROWS` rows.
    """
    image, mask = batch["image"][:GRID_ROWS], batch["mask"][:GRID_ROWS]
    masked = composite(classical.MID_GREY, image, mask)
    white = mask - batch["sketch"][:GRID_ROWS] if "sketch" in batch else mask
    return scoring.sample_grid([masked, image, np.repeat(255 * white, 3, axis=-1)])
