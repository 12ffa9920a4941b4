"""Small picture files and data streams for tests of the input pipeline."""

import io
import itertools

import numpy as np
from PIL import Image

from deepfill_jax import masks
from deepfill_jax.data import examples, pipeline, sources

WHOLE = examples.Preprocessing(image_size=16, crop_size=0, enlarge=False, flip=False)
RANDOM = examples.Preprocessing(image_size=16, crop_size=12, enlarge=False, flip=True)


def encode(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def write_pictures(folder, count, size=20):
    """Writes pictures; picture i has red = 10 * i, and noise in green and blue shows crops."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        picture = noise(size, size, seed=i)
        picture[..., 0] = 10 * i
        Image.fromarray(picture).save(folder / f"{i:02d}.png")
    return sources.open_source(f"folder:{folder}")


def numbers(batches):
    """Returns the number of each example's picture, see `write_pictures`."""
    return [int(image[0, 0, 0]) // 10 for batch in batches for image in batch["image"]]


def take(count, batches):
    return list(itertools.islice(batches, count))


def make_stream(source, preprocessing, **options):
    return pipeline.Stream(source, preprocessing, masks.box_and_strokes, **options)


def training(source, preprocessing=RANDOM, *, seed=0, batch_size=4, **options):
    first_step = options.pop("first_step", 0)
    stream = make_stream(source, preprocessing, seed=seed, batch_size=batch_size, **options)
    return pipeline.training_batches(stream, first_step)


def evaluation(source, preprocessing=WHOLE, *, seed=0, batch_size=4, **options):
    num_examples = options.pop("num_examples", 0)
    stream = make_stream(source, preprocessing, seed=seed, batch_size=batch_size, **options)
    return list(pipeline.evaluation_batches(stream, num_examples))


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def transparent_images():
    """Returns one image of each kind with a single pixel that is not opaque."""
    alpha = Image.new("L", (3, 2), 255)
    alpha.putpixel((1, 1), 254)
    images = {}
    for mode in ("L", "RGB"):
        image = Image.new(mode, (3, 2))
        image.putalpha(alpha)
        images[f"{image.mode}.png"] = encode(image)
    images["a.webp"] = encode(image, "WEBP", lossless=True, exact=True)
    images["a.tif"] = encode(image, "TIFF")
    for mode, shade, key in [("1", 1, 1), ("L", 7, 7), ("RGB", (1, 2, 3), (1, 2, 3)), ("P", 1, 1)]:
        image = Image.new(mode, (3, 2))
        if mode == "P":
            image.putpalette([0, 0, 0, 10, 20, 30])
        image.putpixel((1, 1), shade)
        images[f"key {mode}.png"] = encode(image, transparency=key)
    image = Image.fromarray(np.array([[300, 5]], np.uint16))
    images["key 16.png"] = encode(image, transparency=300)
    return images
