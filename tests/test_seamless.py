"""Completions that meet the border of the hole without a step in color."""

import jax
import numpy as np
import pytest
import scipy

from deepfill_jax import Inpainter
from deepfill_jax.inpaint import seamless

matched = jax.jit(seamless.match_border)
interpolated = jax.jit(seamless.membrane)
weight_of = jax.jit(seamless.thickness_weight)
limited = jax.jit(seamless.limit_contrast)


def mask_of(kind: str, height: int = 64, width: int = 96) -> np.ndarray:
    mask = np.zeros((1, height, width, 1), np.float32)
    if kind == "line":
        mask[:, 20:23] = 1
    elif kind == "box":
        mask[:, 10:50, 20:70] = 1
    elif kind == "border":  # Known on one side only.
        mask[:, :40] = 1
    return mask


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return scipy.ndimage.grey_dilation(mask, (1, 2 * pixels + 1, 2 * pixels + 1, 1))


@pytest.mark.parametrize("kind", ["line", "box", "border"])
def test_constant_difference_has_no_influence(kind):
    mask = mask_of(kind)
    # The contrast in the hole is lower, so it is not limited.
    image = np.random.default_rng(0).uniform(-0.8, 0.8, (1, 64, 96, 3)).astype(np.float32)
    image *= 1 - mask / 2
    offset = np.array([0.1, -0.2, 0.05], np.float32)
    result = matched(image + offset, image, mask)
    np.testing.assert_allclose(result, matched(image, image, mask), atol=2e-3)
    np.testing.assert_array_equal(result[mask[..., 0] == 0], image[mask[..., 0] == 0])
    if kind != "line":
        np.testing.assert_allclose(result, image, atol=2e-3)


def test_thick_holes_have_the_gradients_of_the_prediction():
    # The difference between image and prediction, continued into the hole, is added.
    image, prediction = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 1, 64, 96, 3))
    image, prediction = image.astype(np.float32), prediction.astype(np.float32) / 2
    mask = mask_of("box")
    added = interpolated(np.where(mask > 0, 0, image - prediction), 1 - mask)
    np.testing.assert_allclose(matched(prediction, image, mask), prediction + added, atol=1e-5)


@pytest.mark.parametrize("thickness", [2, 4, 8, 16, 24, 32])
@pytest.mark.parametrize("axis", [1, 2])
def test_weight_of_detail_follows_thickness(thickness, axis):
    mask = np.zeros((1, 96, 96, 1), np.float32)
    np.moveaxis(mask, axis, 0)[30 : 30 + thickness] = 1
    expected = mask * min(thickness / 24, 1) ** 0.5
    np.testing.assert_allclose(weight_of(mask), expected, rtol=1e-6)


def test_weight_of_detail_depends_on_the_own_hole():
    mask = mask_of("box")
    mask[:, 54:56] = 1  # A line beside the box.
    weight = np.asarray(weight_of(mask))
    np.testing.assert_array_equal(weight[:, 10:50, 20:70], 1)
    np.testing.assert_allclose(weight[:, 54:56], (2 / 24) ** 0.5, rtol=1e-6)


def test_hole_continues_beyond_the_edge_of_the_image():
    mask = np.zeros((1, 64, 96, 1), np.float32)
    mask[:, :12] = 1
    np.testing.assert_array_equal(weight_of(mask), mask)


@pytest.mark.parametrize(("kind", "share"), [("line", (4 / 24) ** 0.5), ("box", 1)])
def test_invented_texture_is_weaker_in_thin_holes(kind, share):
    rows, columns = np.mgrid[:64, :96].astype(np.float32)
    smooth = np.stack([rows / 64, columns / 96, (rows - columns) / 160], -1)[np.newaxis] * 0.5
    mask = mask_of(kind)
    texture = np.where((rows + columns) % 2, 0.05, -0.05).astype(np.float32)[..., np.newaxis]
    # Contrast is not limited, because it is higher some pixels beside the hole.
    image = smooth + 4 * texture * (1 - grown(mask, 4))
    result = matched(smooth + texture * mask, image, mask)
    inside = np.broadcast_to(mask, result.shape) > 0
    np.testing.assert_allclose(result[inside], (smooth + share * texture)[inside], atol=0.02)


def test_constant_is_continued_through_a_wide_hole():
    mask = np.zeros((1, 512, 64, 1), np.float32)
    mask[:, 16:496] = 1
    result = interpolated(np.full((1, 512, 64, 3), 0.8, np.float32), 1 - mask)
    np.testing.assert_allclose(result, 0.8, atol=1e-6)


def noise(contrast, height=64, width=96, *, coarse=False):
    sides = (height // 8, width // 8) if coarse else (height, width)
    values = np.random.default_rng(0).normal(0, contrast, (1, *sides, 3)).astype(np.float32)
    return np.kron(values, np.ones((1, 8, 8, 1), np.float32)) if coarse else values


@pytest.mark.parametrize("kind", ["line", "box", "border"])
@pytest.mark.parametrize("coarse", [False, True])
def test_contrast_in_the_hole_is_at_most_that_around_it(kind, coarse):
    mask = mask_of(kind)
    for known, predicted, left in ((0.02, 0.4, 0.02), (0.2, 0.02, 0.02)):
        detail = mask * noise(predicted, coarse=coarse)
        result = np.asarray(limited(detail, noise(known, coarse=coarse), mask))
        contrast = result[np.broadcast_to(mask, result.shape) > 0].std()
        assert 0.6 * left < contrast < 1.4 * left


@pytest.mark.parametrize("coarse", [False, True])
def test_fine_and_coarse_contrast_are_limited_separately(coarse):
    mask = mask_of("box")
    detail = mask * noise(0.1, coarse=not coarse)
    result = mask * np.asarray(limited(detail, noise(0.1, coarse=coarse), mask))
    assert np.abs(result).mean() < 0.7 * np.abs(detail).mean()


def test_contrast_far_inside_the_hole_is_that_around_it():
    mask = np.zeros((1, 512, 64, 1), np.float32)
    mask[:, 16:496] = 1
    detail = mask * noise(0.2, 512, 64)
    result = np.asarray(limited(detail, noise(0.1, 512, 64), mask))
    np.testing.assert_allclose(result[:, 200:300].std(), 0.1, rtol=0.1)


def test_contrast_is_free_where_nothing_is_known():
    detail = noise(0.2, 32, 32)
    np.testing.assert_allclose(limited(detail, detail, np.ones((1, 32, 32, 1))), detail, atol=1e-6)


def test_true_texture_is_better_than_none_in_thin_holes():
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 96, 3)).astype(np.float32)
    mask = mask_of("line")
    interpolation = interpolated(np.where(mask > 0, 0, image), 1 - mask)
    errors = [np.abs(x - image).sum() for x in (matched(image, image, mask), interpolation)]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("kind", ["line", "box"])
def test_linear_values_are_continued_linearly(kind):
    # A linear function solves Laplace's equation.
    rows, columns = np.mgrid[:64, :96].astype(np.float32)
    values = np.stack([rows / 64, columns / 96, (rows - columns) / 160], -1)[np.newaxis]
    known = 1 - mask_of(kind)
    result = interpolated(np.where(known > 0, values, 9), known)
    np.testing.assert_allclose(result, values, atol=0.02)


def test_solution_stays_within_the_values_of_the_border():
    values = np.random.default_rng(0).uniform(-1, 1, (1, 61, 93, 3)).astype(np.float32)
    mask = mask_of("box", 61, 93)
    result = np.asarray(interpolated(values, 1 - mask))
    np.testing.assert_array_equal(result[:, 50:], values[:, 50:])
    assert np.abs(result).max() <= 1
    # Far from the border, the solution averages over much of it.
    assert np.abs(result[:, 25:35, 40:50]).max() < 0.3


def test_nothing_known_and_no_hole_change_nothing():
    prediction = np.random.default_rng(0).uniform(-1, 1, (2, 24, 16, 3)).astype(np.float32)
    image = -prediction
    ones = np.ones((2, 24, 16, 1), np.float32)
    np.testing.assert_allclose(matched(prediction, image, ones), prediction, atol=1e-6)
    np.testing.assert_allclose(matched(prediction, image, 0 * ones), image, atol=1e-6)


def test_garbage_in_the_hole_has_no_influence():
    prediction = np.random.default_rng(0).uniform(-1, 1, (1, 64, 96, 3)).astype(np.float32)
    image, mask = prediction[:, ::-1].copy(), mask_of("box")
    spoilt = np.where(mask > 0, np.float32(np.nan), image)
    np.testing.assert_array_equal(
        matched(prediction, spoilt, mask), matched(prediction, image, mask)
    )


@pytest.fixture(scope="module")
def scenes():
    return Inpainter.load("scenes")


def test_bundled_model_meets_the_border_and_fills_lines_better(scenes):
    rows, columns = np.mgrid[:64, :96].astype(np.float32)
    photo = np.stack([rows * 2 + 40, columns * 2, 200 - rows], -1).astype(np.uint8)
    mask = mask_of("line")[0] > 0
    errors = {
        option: np.abs(
            scenes(photo, mask, seamless=option)[mask[..., 0]].astype(int)
            - photo[20:23].reshape(-1, 3)
        ).mean()
        for option in (True, False)
    }
    assert errors[True] < 0.5 * errors[False]
    assert errors[True] < 3


def test_without_it_the_colors_are_those_of_the_network(scenes):
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    mask = mask_of("box")
    predicted = scenes.predict(photo[np.newaxis] / np.float32(127.5) - 1, mask).completed[0]
    options = {"strategy": "original", "detail": False}
    plain = scenes(photo, mask[0] > 0, **options, seamless=False)
    np.testing.assert_allclose(plain, (predicted + 1) * 127.5, atol=0.51)
    assert (scenes(photo, mask[0] > 0, **options) != plain).any()


@pytest.mark.parametrize("strategy", ["original", "resize", "crop"])
@pytest.mark.parametrize("shape", [(70, 90, 3), (70, 90)])
def test_known_pixels_and_size_are_kept(scenes, strategy, shape):
    photo = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mask = np.zeros((70, 90), bool)
    mask[10:60, 20:40] = mask[5:8, 50:80] = True
    completed = scenes(photo, mask, strategy=strategy)
    assert completed.shape == photo.shape
    np.testing.assert_array_equal(completed[~mask], photo[~mask])


def test_classical_methods_are_unchanged():
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 20:40] = True
    telea = Inpainter.load("telea")
    np.testing.assert_array_equal(telea(photo, mask), telea(photo, mask, seamless=False))
