"""Sketches that guide inpainting through the Python API."""

import functools

import numpy as np
import pytest
from made import make_model, make_picture
from PIL import Image

from deepfill_jax import image as pixels
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import Inpainter


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter(make_model("official"))


@pytest.fixture(scope="module")
def guided():
    return Inpainter(make_model("official", guided=True), working_size=32)


def make_lines(mask):
    """White lines on black, also outside the hole."""
    return np.where(np.indices(mask.shape).sum(0) % 4 == 0, 255, 0).astype(np.uint8)


def test_a_sketch_is_what_the_network_sees_in_the_hole(guided):
    picture, mask = make_picture(64, 64)
    lines = make_lines(mask)
    fill = functools.partial(guided, seamless=False)
    completed = fill(picture, mask, sketch=lines)
    image = np.asarray(pixels.to_float(picture))[np.newaxis]
    areas = [(x > 127).astype(np.float32)[np.newaxis, ..., np.newaxis] for x in (mask, lines)]
    expected = guided.predict(image, *areas).completed[0]
    np.testing.assert_allclose(completed, pixels.to_255(expected), atol=0.51)
    assert guided.guided and np.abs(completed.astype(int) - fill(picture, mask)).max() > 2
    # Only lines in the hole count, and none is an empty sketch.
    np.testing.assert_array_equal(fill(picture, mask, sketch=lines & mask), completed)
    empty = fill(picture, mask, sketch=np.zeros_like(mask))
    np.testing.assert_array_equal(fill(picture, mask), empty)


@pytest.mark.parametrize("strategy", ["original", "resize", "crop"])
def test_a_sketch_guides_every_strategy(guided, strategy):
    picture, _ = make_picture(96, 80)
    mask = np.zeros((96, 80), np.uint8)
    mask[4:40, 10:30] = mask[70:90, 50:76] = 255
    lines = make_lines(mask)
    # What the network paints, and nothing that is copied from or matched to the known pixels.
    plain = {"strategy": strategy, "detail": False, "seamless": False}
    with_lines, without = (guided(picture, mask, sketch=x, **plain) for x in (lines, None))
    with_lines, without = with_lines.astype(int), without.astype(int)

    np.testing.assert_array_equal(with_lines[mask == 0], picture[mask == 0])
    for hole in (np.s_[4:40, 10:30], np.s_[70:90, 50:76]):
        assert np.abs(with_lines[hole] - without[hole]).max() > 2


def test_sketches_of_several_images_files_and_invalid_sketches(guided, inpainter, tmp_path):
    picture, mask = make_picture(24, 40)
    lines = make_lines(mask)
    Image.fromarray(lines).save(tmp_path / "lines.png")
    expected = guided(picture, mask, sketch=lines)
    np.testing.assert_array_equal(
        guided(picture, mask, sketch=str(tmp_path / "lines.png")), expected
    )
    first, second = guided([picture] * 2, [mask] * 2, sketch=[lines, None])
    np.testing.assert_allclose(first, expected.astype(int), atol=1)
    np.testing.assert_allclose(second, guided(picture, mask).astype(int), atol=1)
    with pytest.raises(UsageError, match="There are 2 images, but 1 sketches"):
        guided([picture] * 2, [mask] * 2, sketch=[lines])
    with pytest.raises(UsageError, match="The sketch is 40x23, but the image is 40x24"):
        guided(picture, mask, sketch=lines[1:])
    with pytest.raises(UsageError, match="does not accept a sketch; omit the sketch"):
        inpainter(picture, mask, sketch=lines)
    image, area = np.zeros((1, 8, 8, 3), np.float32), np.ones((1, 8, 8, 1))
    with pytest.raises(UsageError, match="does not accept a sketch; omit the sketch"):
        inpainter.predict(image, area, area)
    with pytest.raises(UsageError, match="a sketch has the mask's shape"):
        guided.predict(image, area, area[:, :4])
