"""Metrics compared with MMagic's values, scikit-image, and NumPy in float64."""

from pathlib import Path

import jax
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from deepfill_jax.evaluate import metrics

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")


def random_case(*, batch=3, height=32, width=41, seed=0):
    """Makes similar float32 images, and masks with about a quarter of the pixels in the hole."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 255, (batch, height, width, 3))
    completed = np.clip(image + rng.normal(0, 30, image.shape), 0, 255)
    mask = rng.uniform(size=(batch, height, width, 1)) < 0.25
    return completed.astype(np.float32), image.astype(np.float32), mask.astype(np.float32)


@pytest.mark.parametrize("pair", ["u8", "float"])
def test_metrics_match_mmagic(pair):
    completed = GOLDEN[f"{pair}/completed"]
    values = jax.jit(metrics.measure)(completed, GOLDEN["image"], GOLDEN["mask"])
    for name in ("l1_hole", "psnr", "ssim"):
        # MMagic sums in float32 as well.
        np.testing.assert_allclose(values[name], [GOLDEN[f"{pair}/{name}"]], rtol=2e-6)


def test_metrics_match_numpy_in_float64():
    completed, image, mask = random_case()
    values = metrics.measure(completed, image, mask)
    for i in range(len(image)):
        error = completed[i].astype(np.float64) - image[i]
        in_hole = error[mask[i, ..., 0] == 1]
        expected = {
            "l1_hole": 100 * np.abs(in_hole / 255).mean(),
            "psnr": 20 * np.log10(255 / np.sqrt((error**2).mean())),
            "psnr_hole": 20 * np.log10(255 / np.sqrt((in_hole**2).mean())),
            "hole_area": (mask[i] == 1).mean(),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(values[name][i], value, rtol=1e-6, err_msg=name)


def skimage_ssim(completed, image):
    return structural_similarity(
        completed.astype(np.float64),
        image.astype(np.float64),
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


@pytest.mark.parametrize("size", [(11, 11), (11, 30), (32, 41)])
def test_ssim_matches_skimage(size):
    completed, image, _ = random_case(height=size[0], width=size[1])
    expected = [skimage_ssim(*pair) for pair in zip(completed, image, strict=True)]
    np.testing.assert_allclose(metrics.ssim(completed, image), expected, rtol=0, atol=1e-6)


def test_ssim_is_precise_for_small_variances():
    # In a bright and almost flat image, squares of 255 leave float32 few digits for a variance.
    # Without centring, the error is 2.8e-6.
    rng = np.random.default_rng(0)
    image = rng.uniform(254, 255, (1, 64, 64, 3)).astype(np.float32)
    completed = image + rng.normal(0, 0.3, image.shape).astype(np.float32)
    expected = skimage_ssim(completed[0], image[0])
    np.testing.assert_allclose(metrics.ssim(completed, image), [expected], rtol=0, atol=1.4e-6)


def test_examples_of_a_batch_are_independent():
    completed, image, mask = random_case()
    alone = metrics.measure(completed[:1], image[:1], mask[:1])
    completed[1:], image[1:], mask[1:] = np.nan, 7.0, 0.0
    together = metrics.measure(completed, image, mask)
    for name, value in alone.items():
        np.testing.assert_allclose(together[name][:1], value, rtol=1e-6, err_msg=name)


def test_hole_metrics_ignore_known_pixels():
    completed, image, mask = random_case()
    elsewhere = np.where(mask > 0, completed, 0.0)
    for metric in (metrics.l1_hole, metrics.psnr_hole):
        assert np.array_equal(metric(elsewhere, image, mask), metric(completed, image, mask))


def test_uint8_differences_do_not_wrap():
    image = np.full((1, 16, 16, 3), 10, np.uint8)
    completed = np.full((1, 16, 16, 3), 5, np.uint8)
    mask = np.ones((1, 16, 16, 1), np.uint8)
    values = metrics.measure(completed, image, mask)
    np.testing.assert_allclose(values["l1_hole"], 100 * 5 / 255, rtol=1e-6)
    np.testing.assert_allclose(values["psnr"], 20 * np.log10(255 / 5), rtol=1e-6)


def test_exact_copy_has_infinite_psnr_and_no_error():
    _, image, mask = random_case()
    values = metrics.measure(image, image, mask)
    assert np.all(values["l1_hole"] == 0)
    assert np.all(np.isposinf(values["psnr"])) and np.all(np.isposinf(values["psnr_hole"]))
    np.testing.assert_allclose(values["ssim"], 1.0, atol=1e-6)


def test_image_without_a_hole_has_no_hole_error():
    completed, image, mask = random_case()
    values = metrics.measure(completed, image, 0 * mask)
    assert np.all(values["l1_hole"] == 0) and np.all(values["hole_area"] == 0)
    assert np.all(np.isposinf(values["psnr_hole"])) and np.all(np.isfinite(values["psnr"]))


@pytest.mark.parametrize("size", [(1, 1), (10, 40), (40, 10)])
def test_small_images_have_all_metrics_but_ssim(size):
    completed, image, mask = random_case(height=size[0], width=size[1])
    values = metrics.measure(completed, image, np.ones_like(mask))
    assert np.all(np.isnan(values.pop("ssim")))
    assert all(np.all(np.isfinite(value)) for value in values.values())
