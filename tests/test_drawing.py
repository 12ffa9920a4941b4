"""Colours of error maps and offset maps, and their legends."""

import colorsys

import numpy as np
import pytest

from deepfill_jax.evaluate import visualization


def test_error_map_ranges_from_black_over_red_and_yellow_to_white():
    image = np.full((1, 5, 3), 200, np.uint8)
    errors = np.array([0, 128 / 3, 2 * 128 / 3, 128, 190])
    completed = image - errors[:, np.newaxis]
    colours = [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255], [255, 255, 255]]
    assert visualization.error_map(completed, image).tolist() == [colours]


def test_error_map_shows_the_mean_absolute_error_over_channels():
    image = np.array([[[100, 100, 100]]], np.uint8)
    completed = np.array([[[64, 136, 100]]], np.uint8)  # The mean absolute error is 24 of 255.
    assert visualization.error_map(completed, image)[0, 0].tolist() == [
        round(255 * 3 * 24 / 128),
        0,
        0,
    ]


def test_error_scale_has_the_colours_of_the_error_map():
    scale = visualization.error_scale(9, 2)
    assert scale.shape == (2, 9, 3)
    assert scale[1, [0, -1]].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert (np.diff(scale[0].astype(int).sum(axis=-1)) > 0).all()


def test_hue_is_the_direction_and_saturation_the_distance_of_an_offset():
    random = np.random.default_rng(0)
    offsets = random.integers(-20, 21, (2, 8, 16, 2))
    colours = visualization.offset_colours(offsets)
    assert colours.dtype == np.uint8
    for (down, right), colour in zip(offsets.reshape(-1, 2), colours.reshape(-1, 3), strict=True):
        hue = (np.degrees(np.arctan2(down, right)) + 180) / 360
        saturation = min(np.hypot(down, right) / 8, 1)
        expected = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, 1))
        np.testing.assert_allclose(colour, expected, atol=0.51)


@pytest.mark.parametrize(
    "offset, is_expected",
    [
        ((0, 0), lambda r, g, b: r == g == b == 255),
        ((4, -4), lambda r, g, b: r == 255 and 255 > b > g),  # Pink for the lower left.
        ((-4, 4), lambda r, g, b: g == 255 and 255 > b > r),  # Green for the upper right.
    ],
)
def test_offset_colours_match_the_paper(offset, is_expected):
    offsets = np.broadcast_to(offset, (16, 16, 2))
    assert is_expected(*visualization.offset_colours(offsets)[0, 0].astype(int))


def test_offset_map_is_coloured_in_the_hole_and_grey_elsewhere():
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3)).astype(np.uint8)
    mask = np.zeros((1, 16, 24, 1), np.uint8)
    mask[:, 3:9, 5:20] = 1
    offsets = np.random.default_rng(1).integers(-2, 3, (1, 2, 3, 2))
    drawn = visualization.offset_map(offsets, image, mask)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    hole, colours = mask[0, ..., 0] == 1, visualization.offset_colours(offsets)[0]
    rows, columns = np.nonzero(hole)
    assert np.array_equal(drawn[0][hole], colours[rows // 8, columns // 8])
    known = drawn[0][~hole].astype(int)
    assert (known == known[:, :1]).all() and known.max() <= 0.35 * 255


def test_wheel_shows_each_offset_at_its_position():
    wheel = visualization.offset_wheel(9)
    assert wheel[4, 4].tolist() == [255, 255, 255]
    offsets = np.zeros((9, 9, 2))
    offsets[0, 0] = (-3, 2)
    assert wheel[1, 6].tolist() == visualization.offset_colours(offsets)[0, 0].tolist()
