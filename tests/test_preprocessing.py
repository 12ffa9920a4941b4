"""Crops, sizes, flips and masks of an example."""

import collections
import functools
import itertools

import cv2
import numpy as np
import pytest
from data_streams import RANDOM, WHOLE, noise

from deepfill_jax import masks
from deepfill_jax.data import examples
from deepfill_jax.errors import UsageError


def preprocess(picture, *, image_size, crop_size=0, enlarge=False, flip=False, seed=0):
    preprocessing = examples.Preprocessing(image_size, crop_size, enlarge, flip)
    return examples.preprocess(picture, preprocessing, np.random.default_rng(seed))


def windows(picture, height, width):
    """Maps the bytes of every crop of a picture to its position."""
    return {
        picture[top : top + height, left : left + width].tobytes(): (top, left)
        for top in range(picture.shape[0] - height + 1)
        for left in range(picture.shape[1] - width + 1)
    }


def test_whole_picture_is_resized_to_a_square():
    picture = noise(40, 30)
    expected = cv2.resize(picture, (16, 16), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(preprocess(picture, image_size=16), expected)


def test_crops_are_uniform_and_of_native_resolution():
    picture = noise(12, 10)
    positions = windows(picture, 8, 8)
    counts = collections.Counter(
        positions[preprocess(picture, image_size=8, crop_size=8, seed=seed).tobytes()]
        for seed in range(1500)
    )
    assert len(counts) == 5 * 3
    assert min(counts.values()) > 50  # The expected count is 100.


def test_crop_is_clipped_to_the_picture_on_each_axis():
    picture = noise(6, 20)
    resized = {
        cv2.resize(picture[:, left : left + 8], (16, 16)).tobytes(): left for left in range(13)
    }
    offsets = {
        resized[preprocess(picture, image_size=16, crop_size=8, seed=seed).tobytes()]
        for seed in range(300)
    }
    assert offsets == set(range(13))


def test_small_pictures_are_enlarged_to_contain_the_crop():
    picture = noise(10, 7)  # The height becomes 20 * 10 / 7 = 28.6, rounded up to 29.
    positions = windows(cv2.resize(picture, (20, 29)), 20, 20)
    options = {"image_size": 20, "crop_size": 20, "enlarge": True}
    cropped = {
        positions[preprocess(picture, **options, seed=seed).tobytes()] for seed in range(200)
    }
    assert cropped == {(top, 0) for top in range(10)}


def test_pictures_that_contain_the_crop_are_not_enlarged():
    picture = noise(11, 8)
    options = {"image_size": 6, "crop_size": 6, "seed": 3}
    enlarged = preprocess(picture, enlarge=True, **options)
    np.testing.assert_array_equal(enlarged, preprocess(picture, **options))


def test_half_of_the_images_are_flipped_horizontally():
    picture = noise(8, 8)
    flipped = [preprocess(picture, image_size=8, flip=True, seed=seed) for seed in range(400)]
    mirrored = [np.array_equal(image, picture[:, ::-1]) for image in flipped]
    same = [np.array_equal(image, picture) for image in flipped]
    assert sum(mirrored) + sum(same) == 400
    assert sum(mirrored) == pytest.approx(200, abs=40)  # The tolerance is 4 standard deviations.


@pytest.mark.parametrize("sizes", [(0, 0, False), (16, -1, False), (16, 0, True)])
def test_preprocessing_rejects_invalid_sizes(sizes):
    with pytest.raises(UsageError, match="_size"):
        examples.Preprocessing(*sizes, flip=False)


def test_masks_do_not_depend_on_picture_or_preprocessing():
    make = functools.partial(examples.make_example, draw_mask=masks.brush_strokes, seed=1)
    _, mask = make(noise(20, 20), WHOLE, index=5)
    _, same = make(noise(33, 50), RANDOM, index=5)
    _, other = make(noise(20, 20), WHOLE, index=6)
    np.testing.assert_array_equal(mask, same)
    assert not np.array_equal(mask, other)


def test_random_streams_of_an_element_are_independent():
    draws = {
        examples.make_rng(seed, index, stream).random()
        for seed, index, stream in itertools.product(range(3), range(3), range(3))
    }
    assert len(draws) == 27
