"""The Python API: kinds of images and masks, transparency, strategies, several images, errors."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.extend
import numpy as np
import pytest
from made import make_batch, make_model, make_picture, truncate
from PIL import Image

import deepfill_jax
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.pictures import Encoded


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter(make_model("official"))


def test_all_256_values_are_preserved(inpainter):
    picture = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    mask = np.zeros((16, 16), np.uint8)
    mask[3, 3] = 255
    completed = inpainter(picture, mask)
    np.testing.assert_array_equal(completed[mask == 0], picture[mask == 0])


def test_a_file_in_memory_is_one_picture_and_an_empty_batch_stays_one(inpainter, tmp_path):
    picture, mask = make_picture(7, 5)
    Image.fromarray(picture).save(tmp_path / "a.png")
    encoded = Encoded((tmp_path / "a.png").read_bytes(), "a.png")
    np.testing.assert_array_equal(inpainter(encoded, mask), inpainter(picture, mask))
    assert inpainter(np.zeros((0, 7, 5, 3), np.uint8), mask[:0]).shape == (0, 7, 5, 3)
    with pytest.raises(UsageError, match="The mask is 4x7, but a.png is 5x7"):
        inpainter(encoded, mask[:, :4])


def test_array_alpha_is_preserved(inpainter):
    picture, mask = make_picture(7, 5)
    grey = picture[..., 0]
    assert inpainter(grey, mask).shape == (7, 5)
    both = np.dstack([picture, 255 - mask])
    assert inpainter(both).shape == (7, 5, 3)
    np.testing.assert_array_equal(inpainter(both, mask)[..., 3], both[..., 3])


def test_image_without_hole_is_returned_unchanged(inpainter):
    picture, _ = make_picture(7, 5)
    nothing = np.zeros((7, 5), np.uint8)
    for refused, problem in ((nothing, "has no hole"), (~nothing, "the whole image the hole")):
        with pytest.raises(UsageError, match=f"The mask .*{problem}.*check_mask=False"):
            inpainter(picture, refused)
    completed = inpainter(picture, nothing, check_mask=False)
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


def test_unusable_inputs_raise_clear_errors(inpainter, tmp_path):
    picture, mask = make_picture(16, 16)
    with pytest.raises(UsageError, match="The mask is 9x16, but the image is 16x16 .width"):
        inpainter(picture, mask[:, :9])
    for bad in (picture.astype(np.int64), picture[..., :2], picture[:0], picture[0, 0, 0]):
        with pytest.raises(UsageError, match=r"image array must be \[H, W\]") as error:
            inpainter(bad, mask)
        assert f"{bad.dtype} {bad.shape}" in str(error.value)
    with pytest.raises(UsageError, match=r"Outside its hole.*\[-1, 1\]"):
        inpainter(picture.astype(np.float32), mask)
    with pytest.raises(UsageError, match="no alpha channel that marks a hole"):
        inpainter(picture)
    with pytest.raises(UsageError, match="2 images, but 1 masks; pass one for all"):
        inpainter([picture, picture], [mask])
    with pytest.raises(UsageError, match="strategy='croop' must be one of auto, original"):
        inpainter(picture, mask, strategy="croop")
    for budget in (0, -1.0, float("inf"), float("nan"), "8"):
        with pytest.raises(UsageError, match=f"budget={budget!r} must be a positive number of meg"):
            inpainter(picture, mask, budget=budget)
    with pytest.raises(UsageError, match="budget=8 has no effect with strategy='crop'; only auto"):
        inpainter(picture, mask, strategy="crop", budget=8)
    for name, value in (("dilate", 2.5), ("dilate", "3"), ("feather", 1.0)):
        with pytest.raises(UsageError, match=f"{name}={value!r} must be a whole number of pixels"):
            inpainter(picture, mask, **{name: value})
    with pytest.raises(UsageError, match="mask_threshold='x' must be from 0 to below 1"):
        inpainter(picture, mask, mask_threshold="x")
    with pytest.raises(UsageError, match="feather=3 must be from 0 to dilate=2"):
        inpainter(picture, mask, dilate=2, feather=3)
    with pytest.raises(UsageError, match="working size must be a multiple of 8, not 100"):
        Inpainter(make_model("official"), working_size=100)
    with pytest.raises(UsageError, match=r"mask array must be .* uint8 \(16, 16, 2\)"):
        inpainter(picture, picture[..., :2])
    with pytest.raises(UsageError, match=r"mask array must be .* object \(\)"):
        inpainter(picture, object())
    broken = tmp_path / "broken.png"
    Image.fromarray(picture).save(broken)
    truncate(broken)
    for image, hole in ((broken, mask), (picture, broken)):
        with pytest.raises(UsageError, match="broken.png cannot be read as an image: "):
            inpainter(image, hole)
    with pytest.raises(UsageError, match="absent.png cannot be read as an image: .*No such file"):
        inpainter(tmp_path / "absent.png", mask)
    with pytest.raises(UsageError, match="There is no model file absent.safetensors"):
        Inpainter.load("absent.safetensors")


STRATEGIES = ("original", "resize", "crop")


@pytest.fixture(scope="module")
def small_worker():
    return Inpainter(make_model("official"), working_size=32)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_arrays_come_back_as_they_are(small_worker, strategy, dtype, channels):
    rng = np.random.default_rng(0)
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    picture = (rng.uniform(size=(70, 90, *channels)) * full).astype(dtype)
    mask = np.zeros((70, 90), bool)
    mask[10:20, 15:22] = mask[40:69, 50:] = True
    completed = small_worker(picture, mask, strategy=strategy)
    assert completed.shape == picture.shape and completed.dtype == dtype
    np.testing.assert_array_equal(completed[~mask], picture[~mask])
    assert (completed[mask] != picture[mask]).any()
    if channels == (4,):
        np.testing.assert_array_equal(completed[..., 3], picture[..., 3])


def test_strategies_differ(small_worker):
    picture, _ = make_picture(90, 90)
    mask = np.zeros((90, 90), bool)
    mask[30:60, 30:60] = True
    results = [small_worker(picture, mask, strategy=name) for name in STRATEGIES]
    for a in range(3):
        assert (results[a] != results[a - 1]).any()
    for height, name in [(60, "original"), (90, "crop")]:
        hole = mask[:height, :height, np.newaxis]
        assert small_worker.complete(picture[:height, :height], hole).strategy == name
        np.testing.assert_array_equal(
            small_worker(picture[:height, :height], hole),
            small_worker(picture[:height, :height], hole, strategy=name),
        )


def test_transparent_pixels_can_be_the_hole(small_worker, tmp_path):
    picture, mask = make_picture(20, 30)
    opacity = np.where(mask, 0, 150).astype(np.uint8)
    rgba = np.dstack([picture, opacity])
    expected = small_worker(picture, mask)
    np.testing.assert_array_equal(small_worker(rgba), expected)
    np.testing.assert_array_equal(small_worker(Image.fromarray(rgba)), expected)
    Image.fromarray(rgba).save(tmp_path / "picture.png")
    np.testing.assert_array_equal(small_worker(tmp_path / "picture.png"), expected)


def test_partly_transparent_pixels_are_filled_and_blended(small_worker):
    picture, mask = make_picture(20, 30)
    opacity = np.where(mask, 64, 255).astype(np.uint8)
    filled = small_worker(picture, mask).astype(float)
    blended = small_worker(np.dstack([picture, opacity]))
    expected = picture + (1 - opacity[..., np.newaxis] / 255) * (filled - picture)
    np.testing.assert_allclose(blended, expected, atol=0.51)
    # A wider hole is filled as a whole.
    wider = {"dilate": 1}
    np.testing.assert_array_equal(
        small_worker(np.dstack([picture, opacity]), **wider), small_worker(picture, mask, **wider)
    )


@pytest.mark.parametrize("strategy", ["original", "resize", "crop"])
def test_colors_under_opacity_0_do_not_matter(small_worker, strategy):
    picture, _ = make_picture(60, 80)
    opacity, mask = np.full((60, 80), 255, np.uint8), np.zeros((60, 80), np.uint8)
    opacity[10:40, 10:50] = 0
    mask[20:35, 15:60] = 255
    hidden = np.where(opacity[..., np.newaxis] == 0, np.uint8(255), picture)
    first, second = (
        small_worker(np.dstack([image, opacity]), mask, strategy=strategy)
        for image in (picture, hidden)
    )
    np.testing.assert_array_equal(first[mask > 0], second[mask > 0])
    np.testing.assert_array_equal(first[mask == 0], np.dstack([picture, opacity])[mask == 0])


def test_several_pictures(small_worker, tmp_path):
    pairs = [make_picture(height, 40, seed=height) for height in (20, 41, 99, 20)]
    images, masks = zip(*pairs, strict=True)
    Image.fromarray(images[1]).save(tmp_path / "1.png")
    images = [images[0], tmp_path / "1.png", *images[2:]]
    completed = small_worker(images, masks)
    assert isinstance(completed, list)
    for one, image, mask in zip(completed, images, masks, strict=True):
        alone = small_worker(image, mask).astype(int)
        np.testing.assert_allclose(one, alone, atol=1)  # The last bit of a batch may round.
    assert small_worker([], []) == []


@pytest.mark.parametrize("kind", ["file", "text", "PIL", "[H, W]", "[H, W, 1]", "[H, W, 3]"])
def test_one_mask_serves_all_images(small_worker, tmp_path, kind):
    images = [make_picture(24, 40, seed)[0] for seed in range(2)]
    mask = make_picture(24, 40)[1]
    Image.fromarray(mask).save(tmp_path / "m.png")
    one = {
        "file": tmp_path / "m.png",
        "text": str(tmp_path / "m.png"),
        "PIL": Image.fromarray(mask),
        "[H, W]": mask,
        "[H, W, 1]": mask[..., np.newaxis],
        "[H, W, 3]": np.dstack([mask] * 3),
    }[kind]
    expected = small_worker(images, [mask, mask])
    for given in (images, np.stack(images)):
        np.testing.assert_array_equal(small_worker(given, one), expected)
    np.testing.assert_array_equal(small_worker(images, np.stack([mask, mask])), expected)


def test_a_batch_of_one_size_is_one_run_of_the_network(small_worker, monkeypatch):
    runs = []
    run = small_worker._run
    monkeypatch.setattr(
        small_worker, "_run", lambda *x, **y: runs.append(len(x[2])) or run(*x, **y)
    )
    pairs = [make_picture(24, 40, seed) for seed in range(5)]
    images, masks = (np.stack(x) for x in zip(*pairs, strict=True))
    completed = small_worker(images, masks)
    assert isinstance(completed, np.ndarray) and completed.shape == images.shape
    assert runs == [8]  # 5, and 3 to make the batch of a size that is compiled often.
    for one, pair in zip(completed, pairs, strict=True):
        np.testing.assert_allclose(one, small_worker(*pair).astype(int), atol=1)


def test_dilate_and_feather(small_worker):
    picture = np.full((40, 40, 3), 255, np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[15:20, 15:20] = True
    # With matched colors, the hole would become white like the picture.
    fill = functools.partial(small_worker, seamless=False)
    plain = fill(picture, mask)
    dilated = fill(picture, mask, dilate=4)
    wide = np.zeros_like(mask)
    wide[11:24, 11:24] = True
    assert (plain[~mask] == 255).all() and (dilated[~wide] == 255).all()
    changed = (dilated < 255).all(axis=-1)
    assert changed[11, 17] and not changed[11, 11]  # A disc.
    feathered = fill(picture, mask, dilate=4, feather=4)
    np.testing.assert_array_equal(feathered[mask], dilated[mask])
    np.testing.assert_array_equal(feathered[~changed], picture[~changed])
    rim = changed & ~mask
    expected = 0.8 * 255 + 0.2 * dilated[11, 17].astype(float)
    np.testing.assert_allclose(feathered[11, 17], expected, atol=0.51)
    assert (feathered[rim] > dilated[rim]).all()


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
