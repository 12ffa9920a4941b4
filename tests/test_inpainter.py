"""Completing pictures: any size in, the same size out, known pixels untouched."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from made import make_model, make_picture, truncate
from PIL import Image

import deepfill_jax
from deepfill_jax import compiler
from deepfill_jax import image as pixels
from deepfill_jax.errors import UsageError
from deepfill_jax.inpainter import Inpainter
from deepfill_jax.models import Generator

SIZES = [(1, 1), (7, 5), (61, 67), (8, 200)]


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter(make_model("official"))


def make_batch(count, height, width):
    rng = np.random.default_rng(1)
    image = rng.uniform(-1, 1, (count, height, width, 3)).astype(np.float32)
    mask = (rng.uniform(size=(count, height, width, 1)) < 0.3).astype(np.float32)
    mask[:, -1, -1] = 1
    return image, mask


def known(image, mask):
    return image[np.broadcast_to(mask < 0.5, image.shape)]


@pytest.mark.parametrize("height, width", SIZES)
def test_any_size_comes_back_with_its_known_pixels(inpainter, height, width):
    picture, mask = make_picture(height, width)
    completed = inpainter(picture, mask)
    assert completed.shape == picture.shape and completed.dtype == np.uint8
    np.testing.assert_array_equal(completed[mask == 0], picture[mask == 0])
    assert (completed[mask == 255] != picture[mask == 255]).any()

    image, mask = make_batch(1, height, width)
    prediction = inpainter.predict(image, mask)
    for x in prediction:
        assert x.shape == image.shape and x.dtype == np.float32 and np.isfinite(x).all()
    np.testing.assert_array_equal(known(prediction.completed, mask), known(image, mask))
    np.testing.assert_array_equal(
        known(prediction.completed, 1 - mask), known(prediction.refined, 1 - mask)
    )


def test_the_smallest_picture_goes_through_reflecting_convolutions():
    completed = Inpainter(make_model("mmagic"))(*make_picture(1, 1))
    assert completed.shape == (1, 1, 3)


def test_multiples_of_eight_are_what_the_generator_makes(inpainter):
    image, mask = make_batch(1, 64, 72)
    model = make_model("official")
    apply = jax.jit(Generator(model.variant).apply, compiler_options=compiler.options())
    expected = apply({"params": model.generator}, pixels.mask_out(image, mask), mask)
    for ours, theirs in zip(inpainter.predict(image, mask), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_padding_mirrors_image_and_mask(inpainter):
    image, mask = make_batch(1, 61, 67)
    below, right = np.r_[:61, 59:56:-1], np.r_[:67, 65:60:-1]
    padded = inpainter.predict(image[:, below][:, :, right], mask[:, below][:, :, right])
    for ours, theirs in zip(inpainter.predict(image, mask), padded, strict=True):
        np.testing.assert_array_equal(ours, theirs[:, :61, :67])


@pytest.mark.parametrize("garbage", [1.0, 1e30, np.nan, np.inf])
def test_what_the_hole_holds_has_no_influence(inpainter, garbage):
    image, mask = make_batch(1, 61, 67)
    expected = inpainter.predict(image, mask)
    spoilt = inpainter.predict(np.where(mask > 0.5, np.float32(garbage), image), mask)
    for ours, theirs in zip(spoilt, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_network_sees_binary_masks_only(inpainter):
    image, mask = make_batch(1, 61, 67)
    expected = inpainter.predict(image, mask).refined
    for same in (np.where(mask > 0.5, 0.51, 0.5), mask > 0.5, mask.astype(np.int64)):
        np.testing.assert_array_equal(inpainter.predict(image, same).refined, expected)


def test_a_batch_is_its_images_one_by_one(inpainter):
    image, mask = make_batch(2, 61, 67)
    both = inpainter.predict(image, mask)
    for i in range(2):
        one = inpainter.predict(image[i : i + 1], mask[i : i + 1])
        for x, y in zip(both, one, strict=True):
            np.testing.assert_allclose(x[i], y[0], atol=1e-6)


def test_sizes_of_one_padded_size_share_a_compilation():
    inpainter = Inpainter(make_model("official"))
    for height, width in [(1, 1), (3, 8), (8, 8), (7, 5)]:
        inpainter(*make_picture(height, width))
    assert inpainter._predict._cache_size() == 1


def test_all_256_values_survive(inpainter):
    picture = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    mask = np.zeros((16, 16), np.uint8)
    mask[3, 3] = 255
    completed = inpainter(picture, mask)
    np.testing.assert_array_equal(completed[mask == 0], picture[mask == 0])


def test_without_a_hole_the_image_comes_back(inpainter):
    picture, _ = make_picture(7, 5)
    completed = inpainter(picture, np.zeros((7, 5), np.uint8))
    np.testing.assert_array_equal(completed, picture)
    completed[0] = 0  # Is not the caller's own array.
    assert picture[0].any()
    image, mask = make_batch(1, 7, 5)
    np.testing.assert_array_equal(inpainter.predict(image, 0 * mask).completed, image)


def test_files_pil_pictures_and_arrays_are_the_same(inpainter, tmp_path):
    picture, mask = make_picture(7, 5)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    expected = inpainter(picture, mask)
    for image, hole in [
        (tmp_path / "picture.png", str(tmp_path / "mask.png")),
        (Image.fromarray(picture), Image.fromarray(mask)),
        (picture, Image.fromarray(mask).convert("1")),
        (jax.numpy.asarray(picture), mask[..., np.newaxis]),
    ]:
        np.testing.assert_array_equal(inpainter(image, hole), expected)


def test_what_cannot_be_used_is_named(inpainter, tmp_path):
    picture, mask = make_picture(16, 16)
    with pytest.raises(UsageError, match="mask is 9x16 pixels, the image 16x16 .width x height"):
        inpainter(picture, mask[:, :9])
    with pytest.raises(UsageError, match=r"uint8 \[H, W, 3\] in RGB, not float64 \(16, 16, 3\)"):
        inpainter(picture / 255, mask)
    with pytest.raises(UsageError, match=r"uint8 \(16, 16, 4\)"):
        inpainter(np.zeros((16, 16, 4), np.uint8), mask)
    with pytest.raises(UsageError, match=r"\(0, 16, 3\)"):
        inpainter(picture[:0], mask[:0])
    with pytest.raises(UsageError, match=r"mask array must be .* uint8 \(16, 16, 3\)"):
        inpainter(picture, picture)
    with pytest.raises(UsageError, match=r"mask array must be .* object \(\)"):
        inpainter(picture, None)
    broken = tmp_path / "broken.png"
    Image.fromarray(picture).save(broken)
    truncate(broken)
    for image, hole in ((broken, mask), (picture, broken)):
        with pytest.raises(UsageError, match="broken.png cannot be read as a picture: "):
            inpainter(image, hole)
    with pytest.raises(UsageError, match="absent.png cannot be read as a picture: .*No such file"):
        inpainter(tmp_path / "absent.png", mask)
    with pytest.raises(UsageError, match="There is no model file absent.safetensors"):
        Inpainter.load("absent.safetensors")


def test_predict_refuses_other_shapes_and_types(inpainter):
    image, mask = make_batch(2, 8, 8)
    for bad_image, bad_mask in [
        (image.astype(np.uint8), mask),
        (image[0], mask[0]),
        (image, mask[:1]),
        (image, mask[..., 0]),
        (image[:, :7], mask),
        (image[:0], mask[:0]),
        (image[..., :1], mask),
    ]:
        with pytest.raises(UsageError, match=r"float image \[B, H, W, 3\]") as error:
            inpainter.predict(bad_image, bad_mask)
        assert f"{bad_image.dtype} {bad_image.shape}" in str(error.value)
        assert f"{bad_mask.dtype} {bad_mask.shape}" in str(error.value)


def test_importing_the_package_is_cheap_and_its_names_are_lazy():
    assert deepfill_jax.Inpainter is Inpainter
    assert deepfill_jax.Prediction._fields == ("coarse", "refined", "completed")
    with pytest.raises(AttributeError, match="Inpaintre"):
        deepfill_jax.Inpaintre  # noqa: B018
    code = """
import sys
import deepfill_jax
assert "jax" not in sys.modules and "numpy" not in sys.modules
for name in ("tensorflow", "torch", "clu", "ml_collections", "cv2", "optax"):
    sys.modules[name] = None  # As if it were not installed.
from deepfill_jax import Inpainter, Prediction
"""
    root = Path(deepfill_jax.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
