"""From one encoded picture to one example: pure numpy, Pillow and OpenCV.

A picture is uint8 RGB [H, W, 3]. Whatever is random in an example is a function of (seed, index),
index being the position of the element in its stream, so it depends neither on the timing of
processes nor on where a run was resumed.
"""

import dataclasses
import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from deepfill_jax.errors import UsageError
from deepfill_jax.masks import DrawMask

# The independent random streams of one seed: numpy generators of [seed, index, stream].
ORDER, CROP, MASK = range(3)

JPEG_END = b"\xff\xd9"


class UnreadablePicture(ValueError):
    """Bytes that do not decode to a picture."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an image of image_size x image_size.

    Published, all with image_size=256 and flip=False: the TF1 release has crop_size=0 on
    CelebA-HQ, and crop_size=256 with enlarge=True on Places2; MMagic has crop_size=384.

    Attributes:
        image_size: Pixels of a side of the result. Resizing is bilinear, without antialiasing,
            and does not keep the aspect.
        crop_size: Pixels of a side of the random crop before the resize, at most the picture's
            own; 0 takes the whole picture.
        enlarge: A picture smaller than the crop is first enlarged to contain it, aspect kept.
        flip: Half of the images are mirrored left to right.

    Raises:
        UsageError: A size is out of range, or `enlarge` has no crop to enlarge to.
    """

    image_size: int
    crop_size: int
    enlarge: bool
    flip: bool

    def __post_init__(self):
        if self.image_size < 1:
            raise UsageError(f"image_size={self.image_size} must be 1 pixel or more.")
        if self.crop_size < 0:
            raise UsageError(f"crop_size={self.crop_size} must be 0 (no crop) or more.")
        if self.enlarge and not self.crop_size:
            raise UsageError("enlarge=True needs a crop_size above 0, the size to enlarge to.")


def generator(seed: int, index: int, stream: int) -> np.random.Generator:
    """The numpy generator of one purpose (`ORDER`, `CROP` or `MASK`) for one element."""
    return np.random.default_rng([seed, index, stream])


def load(picture: str | bytes) -> np.ndarray:
    """Decodes the file of a path, or an encoded picture.

    Raises:
        OSError: The file cannot be read.
        UnreadablePicture: See `decode`.
    """
    return decode(picture if isinstance(picture, bytes) else Path(picture).read_bytes())


def decode(encoded: bytes) -> np.ndarray:
    """Decodes any format that Pillow reads, turned upright by its EXIF orientation.

    Grey is repeated to three channels, 16 bits keep the upper 8, alpha is dropped.

    Returns:
        uint8 [H, W, 3].

    Raises:
        UnreadablePicture: The bytes are no picture, or not all of one.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            if picture.format == "JPEG" and picture.mode == "RGB" and encoded.endswith(JPEG_END):
                return _decode_jpeg(encoded)
            ImageOps.exif_transpose(picture, in_place=True)
            return _to_rgb(picture)
    except Exception as error:  # Pillow's readers raise many kinds, SyntaxError among them.
        raise UnreadablePicture(f"{type(error).__name__}: {error}") from error


def _decode_jpeg(encoded: bytes) -> np.ndarray:
    """The pixels that Pillow gives, upright, in 0.9 of its time (256 px) to 0.4 (12 megapixels).

    OpenCV says nothing of a JPEG that ends early, and has its own formula for CMYK.
    """
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise ValueError("OpenCV finds no picture in this JPEG")
    return picture


def _to_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255.
        grey = np.clip(np.asarray(picture) // 256, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., np.newaxis], 3, axis=-1)
    if picture.mode == "P":  # Not straight to RGB, which warns about transparent colours.
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB"))


def make_example(
    picture: np.ndarray,
    preprocessing: Preprocessing,
    draw_mask: DrawMask,
    *,
    seed: int,
    index: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Makes element `index` of the stream of `seed`.

    Image and mask draw from streams of their own: the mask stays the same when the picture or its
    preprocessing changes.

    Returns:
        The image, uint8 [S, S, 3], and the mask, uint8 [S, S, 1]; S is `image_size`.
    """
    size = preprocessing.image_size
    image = preprocess(picture, preprocessing, generator(seed, index, CROP))
    return image, draw_mask(generator(seed, index, MASK), size, size)


def preprocess(
    picture: np.ndarray, preprocessing: Preprocessing, rng: np.random.Generator
) -> np.ndarray:
    """Enlarges, crops, resizes and flips uint8 [H, W, 3] to [image_size, image_size, 3]."""
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


def _enlarge(picture: np.ndarray, least: int) -> np.ndarray:
    """Enlarges until the shorter side is `least`; neuralgym, `np_scale_to_shape(align=False)`."""
    height, width = picture.shape[:2]
    shorter = min(height, width)
    if shorter >= least:
        return picture
    height, width = (-(-side * least // shorter) for side in (height, width))  # Rounded up.
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


def _random_crop(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A view of `size` pixels of each side, or of the whole side where that is shorter."""
    sides = [min(side, size) for side in picture.shape[:2]]
    top, left = (
        rng.integers(whole - side + 1) for whole, side in zip(picture.shape[:2], sides, strict=True)
    )
    return picture[top : top + sides[0], left : left + sides[1]]
