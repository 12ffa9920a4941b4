"""Makes one training example from one encoded image, with numpy and OpenCV.

A picture is a decoded image of any size, uint8 RGB [H, W, 3]. All random choices of an example are
a function of (seed, index), where index is the position of the example in its stream. They depend
neither on the timing of processes nor on where a run was resumed.
"""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from deepfill_jax.data import records
from deepfill_jax.errors import UsageError
from deepfill_jax.masks import DrawMask
from deepfill_jax.pictures import rgb

# The independent random streams of one seed: numpy generators seeded with [seed, index, stream].
ORDER, CROP, MASK, SKETCH = range(4)

# Fraction of the scale above which an edge becomes a line of the sketch: section 3.3 of the paper,
# and `edge_threshold` of the TF1 release.
EDGE_THRESHOLD = 0.6

# The path of an image file; the paths of an image file and its edge map; a record of a TFDS data
# set; or an encoded image.
Encoded = str | tuple[str, str] | records.Record | bytes


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How to crop, resize and flip a picture to an image of image_size x image_size.

    The published settings all have image_size=256 and flip=False. The TF1 release uses crop_size=0
    on CelebA-HQ, and crop_size=256 with enlarge=True on Places2; MMagic uses crop_size=384.

    Attributes:
        image_size: Side of the resulting image in pixels. Resizing is bilinear, without
            antialiasing, and does not preserve the aspect ratio.
        crop_size: Side of the random crop before resizing, in pixels, clipped to the picture's
            sides; 0 takes the whole picture.
        enlarge: Whether a picture smaller than the crop is first enlarged to contain it, with its
            aspect ratio preserved.
        flip: Whether to flip half of the images horizontally.

    Raises:
        UsageError: A size is out of range, or `enlarge` has no crop to enlarge to.
    """

    image_size: int
    crop_size: int
    enlarge: bool
    flip: bool

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise UsageError(f"image_size={self.image_size} must be 1 pixel or more.")
        if self.crop_size < 0:
            raise UsageError(f"crop_size={self.crop_size} must be 0 (no crop) or more.")
        if self.enlarge and not self.crop_size:
            raise UsageError("enlarge=True needs a crop_size above 0, the size to enlarge to.")


def make_rng(seed: int, index: int, stream: int) -> np.random.Generator:
    """Returns the random generator of one stream (`ORDER`, `CROP`, ...) for one element."""
    return np.random.default_rng([seed, index, stream])


def load(encoded: Encoded) -> np.ndarray:
    """Decodes a picture, or a picture and its edge map.

    Returns:
        uint8 RGB [H, W, 3], or with the edges [H, W, 4].

    Raises:
        OSError: A file cannot be read.
        UnreadableImageError: See `rgb.decode`.
        UsageError: Picture and edge map differ in size.
    """
    if isinstance(encoded, bytes):
        return rgb.decode(encoded)
    if isinstance(encoded, str):
        return rgb.decode(Path(encoded).read_bytes())
    if isinstance(encoded, records.Record):
        return rgb.decode(records.image(encoded.read()))
    picture, edges = (load(path) for path in encoded)
    if picture.shape != edges.shape:
        sizes = " and ".join(f"{x.shape[1]}x{x.shape[0]}" for x in (picture, edges))
        raise UsageError(
            f"{encoded[0]} and its edge map {encoded[1]} are {sizes} pixels; make the map again."
        )
    return np.concatenate([picture, edges[..., :1]], axis=-1)


def make_example(
    picture: np.ndarray,
    preprocessing: Preprocessing,
    draw_mask: DrawMask,
    *,
    seed: int,
    index: int,
    sketch_probability: float | None = None,
) -> tuple[np.ndarray, ...]:
    """Makes example `index` of the stream of `seed`.

    Image, mask and sketch use independent random streams: the mask stays the same when the picture
    or its preprocessing changes.

    Args:
        picture: The decoded picture, from `load`; with a sketch it has an edge map as channel 4.
        preprocessing: How to crop, resize and flip it.
        draw_mask: Draws the mask.
        seed: Seed of the stream.
        index: Position of the example in the stream.
        sketch_probability: Probability that the sketch contains the edges in the hole instead of
            being empty, as in the paper's training of guided models (section 3.3); None makes no
            sketch.

    Returns:
        The image, uint8 [S, S, 3], the mask, uint8 [S, S, 1] of 0 and 1, and, unless
        `sketch_probability` is None, the sketch, uint8 [S, S, 1] of 0 and 1; S is `image_size`.
    """
    size = preprocessing.image_size
    channels = preprocess(picture, preprocessing, make_rng(seed, index, CROP))
    image = np.ascontiguousarray(channels[..., :3])
    mask = draw_mask(make_rng(seed, index, MASK), size, size)
    if sketch_probability is None:
        return image, mask
    if make_rng(seed, index, SKETCH).random() >= sketch_probability:
        return image, mask, np.zeros_like(mask)
    return image, mask, (channels[..., 3:] > 255 * EDGE_THRESHOLD) * mask


def preprocess(
    picture: np.ndarray, preprocessing: Preprocessing, rng: np.random.Generator
) -> np.ndarray:
    """Enlarges, crops, resizes and flips uint8 [H, W, C] to [image_size, image_size, C]."""
    shape = (preprocessing.image_size, preprocessing.image_size)
    if preprocessing.enlarge:
        picture = _enlarge(picture, preprocessing.crop_size)
    if preprocessing.crop_size:
        picture = _random_crop(picture, preprocessing.crop_size, rng)
    if picture.shape[:2] != shape:
        picture = cv2.resize(picture, shape, interpolation=cv2.INTER_LINEAR)
    if preprocessing.flip and rng.random() < 0.5:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


def _enlarge(picture: np.ndarray, min_side: int) -> np.ndarray:
    """Enlarges so that the shorter side is `min_side`: neuralgym's `np_scale_to_shape`.

    The aspect ratio is preserved, as with its `align=False`.
    """
    height, width = picture.shape[:2]
    shorter = min(height, width)
    if shorter >= min_side:
        return picture
    height, width = (-(-side * min_side // shorter) for side in (height, width))  # Rounded up.
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


def _random_crop(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a view of a random crop of size x size, clipped to the picture's sides."""
    sides = [min(side, size) for side in picture.shape[:2]]
    top, left = (
        rng.integers(whole - side + 1) for whole, side in zip(picture.shape[:2], sides, strict=True)
    )
    return picture[top : top + sides[0], left : left + sides[1]]
