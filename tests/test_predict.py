"""The network of `Inpainter`: any image size, hole pixels, batches, refused arrays."""

import jax
import jax.extend
import numpy as np
import pytest
from made import make_batch, make_model, make_picture

from deepfill_jax import compiler
from deepfill_jax import image as pixels
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.models import Generator

SIZES = [(1, 1), (7, 5), (61, 67), (8, 200)]


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter(make_model("official"))


def known(image, mask):
    return image[np.broadcast_to(mask < 0.5, image.shape)]


@pytest.mark.parametrize("height, width", SIZES)
def test_any_size_keeps_its_known_pixels(inpainter, height, width):
    picture, mask = make_picture(height, width)
    completed = inpainter(picture, mask, check_mask=False)  # The hole of 1x1 is everything.
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
    completed = Inpainter(make_model("mmagic"))(*make_picture(1, 1), check_mask=False)
    assert completed.shape == (1, 1, 3)


def test_multiples_of_eight_equal_the_generator_output(inpainter):
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
def test_hole_pixels_have_no_influence(inpainter, garbage):
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


def test_batch_equals_single_images(inpainter):
    image, mask = make_batch(2, 61, 67)
    both = inpainter.predict(image, mask)
    for i in range(2):
        one = inpainter.predict(image[i : i + 1], mask[i : i + 1])
        for x, y in zip(both, one, strict=True):
            np.testing.assert_allclose(x[i], y[0], atol=1e-6)


def test_predict_rejects_other_shapes_and_types(inpainter):
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
