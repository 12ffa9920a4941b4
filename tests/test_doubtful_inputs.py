"""Inputs that can be read, but were probably meant otherwise: warnings and refusals."""

import numpy as np
import pytest
from made import make_model
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.inpaint.inputs import read_inputs
from deepfill_jax.pictures import read

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
MASK = np.zeros((20, 30), np.uint8)
MASK[5:15, 5:20] = 255
LINES = np.zeros((20, 30), np.uint8)
LINES[8] = 255


@pytest.mark.parametrize(
    "sketch, expected",
    [
        (LINES, ()),
        (255 - LINES, ("lines.png marks 95% of the image as lines; draw white lines on black",)),
        (LINES // 3, ("lines.png has no lines in the hole; draw white lines on black",)),
        (np.roll(LINES, 10, 0), ("lines.png has no lines in the hole; draw white",)),
    ],
    ids=["white on black", "black on white", "gray", "outside the hole"],
)
def test_sketches_that_are_not_white_on_black_are_warned_of(tmp_path, sketch, expected):
    Image.fromarray(sketch).save(tmp_path / "lines.png")
    found = read_inputs(IMAGE, MASK, tmp_path / "lines.png").warnings
    assert len(found) == len(expected)
    for warning, part in zip(found, expected, strict=True):
        assert part in warning
    assert read_inputs(IMAGE, MASK, (255 - LINES) > 0).warnings == ()  # Not read from values.


@pytest.mark.parametrize("highest", [255, 1023, 4095, 4096, 65535])
def test_16_bit_images_of_few_bits_are_warned_of(tmp_path, highest):
    pixels = (IMAGE[..., 0].astype(float) / 255 * highest).astype(np.uint16)
    pixels[0, 0], pixels[8, 8] = highest, 65535  # The second one is in the hole.
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for image, name in ((pixels, "The image"), (tmp_path / "a.png", "a.png")):
        found = read_inputs(image, MASK).warnings
        assert len(found) == (highest < 4096)
        for warning in found:
            assert f"{name} has 16 bits per channel, but its known pixels are at most" in warning
            assert f" {highest} of 65535" in warning
    # The command and the server fill what they have read and warned of before.
    assert read_inputs(read(tmp_path / "a.png"), MASK).warnings == ()


def test_masked_values_of_arrays_are_not_used(tmp_path):
    image = np.ma.masked_array(IMAGE, IMAGE > 250)
    with pytest.raises(UsageError, match=r"The image has masked values.*filled\(\)"):
        read_inputs(image, MASK)
    with pytest.raises(UsageError, match="The mask has masked values"):
        read_inputs(IMAGE, np.ma.masked_array(MASK, MASK == 0))
    read_inputs(np.ma.masked_array(IMAGE, False), MASK)


def test_dilation_to_the_whole_image_is_refused():
    inpainter = Inpainter(make_model("official"))
    with pytest.raises(UsageError, match="Dilation by 20 pixels makes the whole image the hole"):
        inpainter(IMAGE, MASK, dilate=20)
