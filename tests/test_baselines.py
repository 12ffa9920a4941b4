"""Classical baselines: known pixels stay exact, and holes are filled better than with grey."""

import numpy as np
import pytest

from deepfill_jax.evaluate.baselines import BASELINES, MID_GREY

FILLS = pytest.mark.parametrize("fill", BASELINES.values(), ids=BASELINES)


def gradient(height=48, width=56):
    """Makes a smooth image whose channels differ."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.rint(255 * np.stack([x, y, (x + y) / 2], axis=-1)).astype(np.uint8)


def box(height=48, width=56):
    mask = np.zeros((height, width, 1), np.uint8)
    mask[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 1
    return mask


def error(completed, image, mask):
    """Computes the mean absolute error inside the hole, 0..255."""
    return np.abs(completed.astype(float) - image)[mask[..., 0] > 0].mean()


@FILLS
def test_known_pixels_are_exact_and_hidden_pixels_have_no_influence(fill):
    noise = np.random.default_rng(0).integers(0, 256, (40, 37, 3), dtype=np.uint8)
    mask = box(40, 37)
    hidden = np.where(mask > 0, np.uint8(0), noise)
    completed = fill(noise, mask)
    assert completed.dtype == np.uint8 and completed.shape == noise.shape
    assert np.array_equal(completed[mask[..., 0] == 0], noise[mask[..., 0] == 0])
    assert np.array_equal(completed, fill(hidden, mask)), (
        "The result depends on pixels inside the hole."
    )
    assert np.any(completed != hidden)


@FILLS
def test_error_is_less_than_half_of_a_grey_hole(fill):
    image, mask = gradient(), box()
    grey = np.full_like(image, MID_GREY)
    image = image // 2  # Its mean must not be mid-grey.
    assert error(fill(image, mask), image, mask) < 0.5 * error(grey, image, mask)


@pytest.mark.parametrize("name", ["telea", "navier_stokes", "patchmatch", "biharmonic"])
def test_gradient_is_continued(name):
    image, mask = gradient(), box()
    flat = error(BASELINES["mean"](image, mask), image, mask)
    assert error(BASELINES[name](image, mask), image, mask) < 0.5 * flat


def test_biharmonic_is_exact_on_a_gradient():
    image, mask = gradient(), box()
    completed = BASELINES["biharmonic"](image, mask)
    assert error(completed, image, mask) < 0.5  # The bound allows for rounding.


def test_patchmatch_continues_a_texture():
    image, mask = np.tile(gradient(12, 14), (4, 4, 1)), box()
    smeared = error(BASELINES["telea"](image, mask), image, mask)
    assert error(BASELINES["patchmatch"](image, mask), image, mask) < 0.25 * smeared


def test_mean_uses_known_pixels_only():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2] = (10, 20, 30)
    mask = np.zeros((4, 4, 1), np.uint8)
    mask[2:] = 1
    completed = BASELINES["mean"](image, mask)
    assert np.array_equal(completed, np.broadcast_to(np.uint8([10, 20, 30]), (4, 4, 3)))


@FILLS
def test_empty_mask_returns_a_copy_and_full_mask_mid_grey(fill):
    image, mask = gradient(), box()
    unchanged = fill(image, 0 * mask)
    assert np.array_equal(unchanged, image) and unchanged is not image
    assert np.all(fill(image, np.ones_like(mask)) == MID_GREY)


@FILLS
@pytest.mark.parametrize("size", [(1, 2), (2, 1), (5, 3), (1, 40)])
def test_small_image_with_a_single_known_pixel(fill, size):
    image = gradient(*size)
    mask = np.ones((*size, 1), np.uint8)
    mask[0, 0] = 0
    completed = fill(image, mask)
    assert completed.shape == image.shape and np.array_equal(completed[0, 0], image[0, 0])


@FILLS
def test_mask_of_255_means_the_same_as_mask_of_1(fill):
    image, mask = gradient(), box()
    assert np.array_equal(fill(image, 255 * mask), fill(image, mask))
