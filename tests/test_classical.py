"""Classical baselines: known pixels stay exact, and holes are filled better than with grey."""

import io
import sys

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from deepfill_jax.app.api import make_api
from deepfill_jax.app.registry import available
from deepfill_jax.app.service import Service
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import __main__ as command
from deepfill_jax.inpaint.classical import BASELINES, MID_GREY
from deepfill_jax.inpaint.inpainter import UNGUIDED, Inpainter

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


@pytest.mark.parametrize("strategy", ["auto", "original", "resize", "crop"])
@pytest.mark.parametrize("name", BASELINES)
def test_inpainter_completes_at_full_size_like_the_function(name, strategy):
    image, mask = gradient(60, 140), box(60, 140) > 0
    mask[:30] = False
    completed = Inpainter.load(name).complete(image, mask, strategy=strategy)
    np.testing.assert_array_equal(completed.pixels, BASELINES[name](image, mask))
    assert completed.scale == 1.0


def test_inpainter_with_a_classical_method_takes_images_of_any_type():
    inpainter = Inpainter.load("telea")
    image, mask = gradient(), box()
    expected = inpainter(image, mask)
    deep = inpainter(image.astype(np.uint16) * 257, mask)
    np.testing.assert_array_equal(deep, expected.astype(np.uint16) * 257)
    np.testing.assert_array_equal(inpainter(image[..., 0], mask).shape, image.shape[:2])
    prediction = inpainter.predict(image[None] / np.float32(127.5) - 1, mask[None])
    np.testing.assert_allclose((prediction.completed[0] + 1) * 127.5, expected, atol=1e-3)
    with pytest.raises(UsageError, match=UNGUIDED):
        inpainter(image, mask, sketch=mask)


def test_command_completes_a_folder_with_a_classical_method(tmp_path, capsys):
    for folder, pixels in (("images", gradient()), ("masks", box()[..., 0] * 255)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    places = {name: str(tmp_path / name) for name in ("images", "masks", "output")}
    options = [f"--{name}={place}" for name, place in places.items()]
    for name in ("navier_stokes", "telea"):  # The second result replaces the first.
        command.main(["--model", name, *options])
        result = np.asarray(Image.open(tmp_path / "output/a.png"))
        np.testing.assert_array_equal(result, BASELINES[name](gradient(), box()))
    assert "changed: model" in capsys.readouterr().out


def test_server_offers_classical_methods():
    service = Service(available(["scenes", "telea"]))
    files = {
        name: (f"{name}.png", _png(pixels))
        for name, pixels in (("image", gradient()), ("mask", box()[..., 0] * 255))
    }
    with TestClient(make_api(service), base_url="http://127.0.0.1") as client:
        models = {model["name"]: model for model in client.get("/api/models").json()}
        answer = client.post("/api/inpaint", files=files, data={"model": "telea"})
    service.worker.close()
    assert models["telea"]["architecture"] == "classical" and not models["telea"]["guided"]
    assert answer.status_code == 200, answer.text
    result = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(result, BASELINES["telea"](gradient(), box()))


def _png(pixels):
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match=r"telea needs cv2: pip install 'deepfill_jax\[train\]'"):
        BASELINES["telea"](gradient(), box())
