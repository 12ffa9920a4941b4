"""Tests of the checks that refuse masks which would be misinterpreted."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import MaskOptions, hole_of_values, read_mask

CHECKED = MaskOptions()
LABELS = np.zeros((40, 60), np.uint8)
for number in range(9):
    LABELS[4 * number : 4 * number + 4, 5 * number : 5 * number + 6] = number + 1


def voc(labels):
    """Makes a palette image with the class colours of Pascal VOC."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        for bit in range(8):
            for channel in range(3):
                colours[index, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    picture = Image.fromarray(labels)
    picture.putpalette(colours.ravel().tolist())
    return picture


VOID = np.where(LABELS == 5, 255, LABELS).astype(np.uint8)
NUMBERS = {
    "numbers 1 to 9": Image.fromarray(LABELS),
    "numbers 1 to 9, spread": Image.fromarray(28 * LABELS),
    "numbers and 255 for void": Image.fromarray(VOID),
    "16 bits": Image.fromarray(LABELS.astype(np.uint16)),
    "VOC palette": voc(LABELS),
    "VOC palette, one class": voc((LABELS > 4).astype(np.uint8)),
    "VOC colours": voc(VOID).convert("RGB"),
    "painted in two colours": Image.fromarray(
        np.dstack([28 * LABELS, 0 * LABELS, 0 * LABELS, np.where(LABELS, 255, 0)]).astype(np.uint8)
    ),
}


@pytest.mark.parametrize("mask", NUMBERS.values(), ids=NUMBERS)
def test_class_number_masks_are_refused_unless_the_threshold_is_0(tmp_path, mask):
    path = tmp_path / "a.png"
    mask.save(path)
    with pytest.raises(UsageError, match="a.png .*class or instance numbers.*mask_threshold=0 "):
        read_mask(path, CHECKED)
    expected = np.asarray(mask.convert("RGBA"))[..., :3].any(axis=2) if mask.mode != "I;16" else 0
    expected = LABELS > 0 if mask.mode == "I;16" else expected
    found = read_mask(path, MaskOptions(threshold=0))
    np.testing.assert_array_equal(found[..., 0], expected)
    read_mask(path)  # Without checks, the mask is read.


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_class_number_arrays_are_refused_unless_the_threshold_is_0(dtype):
    values = (LABELS % 3).astype(dtype)
    with pytest.raises(UsageError, match="The mask has no hole: its values are 0 to 2 of 255"):
        hole_of_values(values, CHECKED)
    hole = hole_of_values(values, MaskOptions(threshold=0))
    np.testing.assert_array_equal(hole[..., 0], values > 0)


def smooth(radius):
    mask = Image.new("L", (400, 300))
    ImageDraw.Draw(mask).ellipse((120, 90, 250, 220), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(radius))


def antialiased():
    mask = Image.new("L", (400, 400))
    ImageDraw.Draw(mask).ellipse((90, 60, 250, 260), fill=255)
    return mask.resize((100, 100), Image.Resampling.BOX)


@pytest.mark.parametrize(
    "mask",
    [smooth(2), smooth(8), smooth(30), antialiased(), antialiased().quantize(16)],
    ids=["blur 2", "blur 8", "blur 30", "antialiased", "antialiased palette"],
)
def test_smooth_edges_are_not_class_numbers(mask):
    np.testing.assert_array_equal(read_mask(mask, CHECKED), read_mask(mask))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_noise_of_a_lossy_file_is_not_a_mask_of_0_and_1(tmp_path, kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"Pillow was built without {kind}.")
    noise = np.random.default_rng(0).integers(0, 2, (16, 16), np.uint8)
    Image.fromarray(np.dstack([noise] * 3)).save(tmp_path / "a.x", kind, quality=100)
    assert not read_mask(tmp_path / "a.x").any()
    with pytest.raises(UsageError, match="a.x has no hole: its .* of 255, and none is above"):
        read_mask(tmp_path / "a.x", CHECKED)


def test_array_of_ones_is_almost_black():
    ones = np.ones((16, 16), np.uint8)
    for values in (ones, np.dstack([ones] * 3), ones.astype(np.uint16)):
        assert not hole_of_values(values).any()
        with pytest.raises(UsageError, match="its only value is 1 of 255"):
            hole_of_values(values, CHECKED)
    noise = np.random.default_rng(0).integers(0, 2, (16, 16), np.uint8)
    assert hole_of_values(noise).any()  # Lossless values of 0 and 1 have the scale 1.


@pytest.mark.parametrize("invert", [False, True])
def test_empty_and_full_holes_are_refused(invert):
    options = MaskOptions(invert=invert, say_unchecked="--no-mask-check")
    black, white = (np.full((8, 8), x, np.uint8) for x in (0, 255))
    nothing, everything = (white, black) if invert else (black, white)
    colour = "black" if invert else "white"
    with pytest.raises(UsageError, match=f"has no hole.* remove {colour}.*--no-mask-check"):
        hole_of_values(nothing, options)
    with pytest.raises(UsageError, match=f"whole image the hole.* {colour}.*--no-mask-check"):
        hole_of_values(everything, options)
    assert hole_of_values(everything, options._replace(check=False)).all()
    bools = hole_of_values(np.ones((8, 8), bool), MaskOptions(check=False))
    assert bools.all()
