"""Checks of what a run learns from: pictures, masks, batches."""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict
from PIL import Image

from deepfill_jax import masks
from deepfill_jax.data import sources
from deepfill_jax.data.files import Files
from deepfill_jax.data.sources import Source
from deepfill_jax.doctor.case import OK, WARNING, WRONG, Case, Finding, SkippedError
from deepfill_jax.evaluate import baselines, scoring
from deepfill_jax.image import composite
from deepfill_jax.train import build

MEASURED = 512  # Pictures whose size is read.
COMPARED = 2048  # Validation pictures that are looked for among the training pictures.
HEAD = 65536  # Bytes of a file that tell it from others of the same length.
STRETCHED = 1.5  # Width by height, or the inverse, of a picture that becomes a square.
DRAWN = 200  # Masks whose area is measured.
INVERTED = 0.6  # Mean area of mask files, above which the hole is probably what is black.
TINY = 0.02  # Mean area below which most of the loss is not about the hole.
ROWS = 8  # Of the picture of a batch.


def training_pictures(case: Case) -> Iterator[Finding]:
    """Whether they can be read, how many are bad, and whether they are large enough."""
    source = build.open_source(case.config)
    case.source = source
    yield _count(source)
    yield judge_sizes(_sizes(source), case.config)


def validation_pictures(case: Case) -> Iterator[Finding]:
    """Whether they can be read, and are others than those of training."""
    source = build.open_source(case.config, validation=True)
    yield _count(source)
    case.need("source")
    if source.name == case.source.name:
        text = "config.data.val_source is config.data.source"
    elif shared := _shared(source, case.source):
        text = f"{shared} of {min(len(source), COMPARED)} are training pictures too"
    else:
        return
    yield Finding(
        WARNING,
        f"{text}: scores will not say how new pictures fare; keep some out of the training.",
    )


def _count(source: Source) -> Finding:
    bad = source.left_out if isinstance(source, Files) else ()
    text = f"{source.name}: {len(source):,} pictures"
    if bad:
        total = len(source) + len(bad)
        return Finding(
            WARNING,
            f"{text}; {len(bad)} of {total:,} files cannot be read and are left out, the first is "
            f"{bad[0]}: delete them or fetch them again.",
        )
    return Finding(OK, f"{text}, all readable.")


def _sizes(source: Source) -> np.ndarray:
    """Width and height of up to `MEASURED` pictures, spread over the source; int [N, 2]."""
    if isinstance(source, Files):
        places = np.linspace(0, len(source) - 1, min(len(source), MEASURED)).astype(int)
        encoded = [source.paths[place] for place in places]
    else:
        items = source.in_order().take(MEASURED).as_numpy_iterator()
        encoded = [io.BytesIO(source.encoded(item)) for item in items]
    sizes = []
    for picture in encoded:
        with Image.open(picture) as opened:
            sizes.append(opened.size)
    return np.array(sizes)


def judge_sizes(sizes: np.ndarray, config: ConfigDict) -> Finding:
    """Says whether pictures of these sizes, int [N, 2], become good images."""
    crop, size = config.data.crop_size, config.image_size
    shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
    small = np.mean(shorter < (crop or size))
    stretched = np.mean(longer > STRETCHED * shorter)
    text = f"{len(sizes)} measured, shorter sides {shorter.min()} to {shorter.max()} px"
    if small and crop and config.data.enlarge:
        problem = f"{small:.0%} are enlarged to config.data.crop_size={crop} and will look soft"
        remedy = "lower it or use larger pictures"
    elif small and crop:
        problem = f"{small:.0%} are below config.data.crop_size={crop} and will be stretched to fit"
        remedy = f"lower it to {shorter.min()}, or set config.data.enlarge=True"
    elif small:
        problem = f"{small:.0%} are below config.image_size={size} and will look soft"
        remedy = "lower it or use larger pictures"
    elif stretched and not crop:
        problem = f"{stretched:.0%} are far from square and config.data.crop_size=0 makes them so"
        remedy = f"set config.data.crop_size={shorter.min()} to cut squares out of them"
    elif crop and crop < size:
        problem = f"crops of config.data.crop_size={crop} px are enlarged to {size}"
        remedy = f"set config.data.crop_size={size} or more"
    else:
        return Finding(OK, f"{text}.")
    return Finding(WARNING, f"{text}; {problem}: {remedy}.")


def _shared(some: Source, others: Source) -> int:
    """How many of the first source's files are in the second too, under whatever name."""
    if not (isinstance(some, Files) and isinstance(others, Files)):
        return 0
    looked_for = some.paths[:COMPARED]
    lengths = {os.path.getsize(path) for path in looked_for}
    alike = [path for path in others.paths if os.path.getsize(path) in lengths]
    known = {_fingerprint(path) for path in alike}
    return sum(_fingerprint(path) in known for path in looked_for)


def _fingerprint(path: str) -> tuple[int, bytes]:
    with open(path, "rb") as file:
        return os.path.getsize(path), hashlib.blake2b(file.read(HEAD)).digest()


def tensorflow_leaves_gpus(case: Case) -> Iterator[Finding]:
    """TensorFlow only reads pictures here, and would take a GPU's memory from JAX."""
    del case
    with contextlib.suppress(RuntimeError):  # It has taken them already.
        sources.hide_gpus()
    held = tf.config.get_visible_devices("GPU")
    if held:
        text = f"TensorFlow holds {len(held)} GPUs that JAX needs"
        yield Finding(WRONG, f"{text}; pip uninstall tensorflow, pip install tensorflow-cpu.")
    else:
        yield Finding(OK, "TensorFlow holds no GPU.")


def hole_masks(case: Case) -> Iterator[Finding]:
    """Whether white is the hole, and how large the holes are."""
    config, size = case.config.masks, case.config.image_size
    if config.weights.folder > 0:
        kinds = {"folder": 1.0}
        draw = masks.sampler(
            kinds, min_area=config.min_area, max_area=config.max_area, folder=config.folder
        )
        yield judge_areas(f"files of {config.folder}", _areas(draw, size), from_files=True)
    if any(weight > 0 for kind, weight in config.weights.items() if kind != "folder"):
        drawn = config.copy_and_resolve_references()
        drawn.weights.folder = 0.0
        kinds = ", ".join(kind for kind, weight in drawn.weights.items() if weight > 0)
        yield judge_areas(kinds, _areas(masks.sampler(**drawn), size), from_files=False)


def _areas(draw: masks.DrawMask, size: int) -> np.ndarray:
    """Share of the picture in the hole, of `DRAWN` masks."""
    rng = np.random.default_rng(0)
    return np.array([draw(rng, size, size).mean() for _ in range(DRAWN)])


def judge_areas(kinds: str, areas: Sequence[float], *, from_files: bool) -> Finding:
    """Says what is odd about holes that take these shares of their pictures."""
    counts, _ = np.histogram(areas, bins=10, range=(0, 1))
    parts = [f"{10 * i}-{10 * i + 10} %: {n}" for i, n in enumerate(counts) if n]
    mean = float(np.mean(areas))
    text = f"{kinds}: the hole is {mean:.0%} of a picture on average; by area, {', '.join(parts)}"
    whole = int(np.sum(np.equal(areas, 1)))
    if mean > INVERTED and from_files:
        remedy = "inverted? White must be the hole: invert the files, or use others"
        return Finding(WRONG, f"{text}; {remedy}.")
    if mean > INVERTED:
        return Finding(WARNING, f"{text}; little is left to fill from: choose other masks.")
    if whole:
        problem = f"{whole} of {len(areas)} leave nothing to fill from"
        return Finding(WARNING, f"{text}; {problem}: leave those files out.")
    if mean < TINY:
        return Finding(WARNING, f"{text}; so small a hole teaches little: choose other masks.")
    return Finding(OK, f"{text}.")


def batch(case: Case) -> Iterator[Finding]:
    """Draws the first batch of the training, and shows it."""
    case.need("source")
    batches = build.training_batches(case.config, case.source)(0)
    case.batch = next(batches)
    case.batches = batches
    if not case.folder.is_dir():
        raise SkippedError("a batch came, but needs a workdir to be shown in, see above.")
    path = case.folder / "batch.png"
    try:
        Image.fromarray(picture(case.batch)).save(path)
    except OSError as error:
        yield Finding(WRONG, f"{path} cannot be written ({error.strerror}).")
        return
    rows = min(ROWS, len(case.batch["image"]))
    last = "mask, with the sketch in black" if "sketch" in case.batch else "mask"
    yield Finding(OK, f"Look at {path}: {rows} examples as masked, image and {last}.")


def picture(batch: dict[str, np.ndarray]) -> np.ndarray:
    """Lays examples out in rows of what the network sees, the image, and the mask in white.

    Lines of a sketch are black in the mask.
    """
    image, mask = batch["image"][:ROWS], batch["mask"][:ROWS]
    masked = np.asarray(composite(baselines.MID_GREY, image, mask))
    white = mask - batch["sketch"][:ROWS] if "sketch" in batch else mask
    return scoring.sample_grid([masked, image, np.repeat(255 * white, 3, axis=-1)])
