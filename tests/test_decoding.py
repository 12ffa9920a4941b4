"""Decoding of picture files for training."""

import io
import warnings

import numpy as np
import pytest
from data_streams import encode, noise, transparent_images
from PIL import Image, ImageOps

from deepfill_jax.pictures import rgb


def with_transparent_colours():
    picture = Image.new("P", (3, 2), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    return encode(picture, transparency=bytes([100, 255]))  # Only the unused color is transparent.


@pytest.mark.parametrize(
    "encoded, colour",
    [
        (encode(Image.new("L", (3, 2), 77)), (77, 77, 77)),
        (encode(Image.new("LA", (3, 2), (77, 255))), (77, 77, 77)),
        (encode(Image.new("1", (3, 2), 1)), (255, 255, 255)),
        (encode(Image.new("RGBA", (3, 2), (10, 20, 30, 255))), (10, 20, 30)),
        (encode(Image.new("RGB", (3, 2), (10, 20, 30)).quantize(4)), (10, 20, 30)),
        (with_transparent_colours(), (10, 20, 30)),
        (encode(Image.new("CMYK", (3, 2), (245, 235, 225, 0)), "TIFF"), (10, 20, 30)),
        (encode(Image.fromarray(np.full((2, 3), 77 * 256 + 200, np.uint16))), (77, 77, 77)),
        (encode(Image.new("RGB", (3, 2), (10, 20, 30)), "WEBP", lossless=True), (10, 20, 30)),
    ],
    ids=["grey", "grey+alpha", "1-bit", "RGBA", "palette", "P+alpha", "CMYK", "16-bit", "WebP"],
)
def test_decode_reads_any_mode(encoded, colour):
    with warnings.catch_warnings(action="error"):
        picture = rgb.decode(encoded)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, np.broadcast_to(colour, (2, 3, 3)))


@pytest.mark.parametrize("name", transparent_images())
def test_decode_refuses_transparent_pixels(name):
    with warnings.catch_warnings(action="error"):
        with pytest.raises(rgb.TransparentImageError, match="transparent pixels"):
            rgb.decode(transparent_images()[name])


@pytest.mark.parametrize("orientation, quarter_turns", [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_decode_applies_exif_orientation(orientation, quarter_turns):
    stored = noise(5, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = rgb.decode(encode(Image.fromarray(stored), exif=exif))
    np.testing.assert_array_equal(upright, np.rot90(stored, quarter_turns))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_decoded_jpeg_equals_pillows(mode, progressive, subsampling):
    picture = Image.fromarray(noise(9, 14)).resize((37, 23)).convert(mode)
    for orientation in range(9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        encoded = encode(
            picture, "JPEG", progressive=progressive, subsampling=subsampling, exif=exif
        )
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
        np.testing.assert_array_equal(rgb.decode(encoded), expected)


def test_decode_rejects_truncated_images_and_other_files():
    jpeg = encode(Image.fromarray(noise(64, 64)), "JPEG")
    for encoded in (b"", b"some text", jpeg[: len(jpeg) // 2], encode(Image.new("L", (9, 9)))[:40]):
        with pytest.raises(rgb.UnreadableImageError):
            rgb.decode(encoded)
