"""Masks that were drawn on the stored pixels of an image with an EXIF orientation."""

import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from made import make_model
from PIL import Image

from deepfill_jax import pictures
from deepfill_jax.app.service import Service
from deepfill_jax.app.web import make_app
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.inpaint.inputs import read_inputs
from deepfill_jax.pictures import MaskOptions, upright

OBLONG, SQUARE = (24, 40), (32, 32)


def write(folder, shape, orientation, kind="jpg"):
    """Writes an image with an EXIF orientation; returns it and a mask of its stored pixels."""
    exif = Image.Exif()
    exif[274] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"a.{kind}", exif=exif)
    mask = np.zeros((*shape, 1), np.uint8)
    mask[2:7, 3:19] = 255
    Image.fromarray(mask[..., 0]).save(folder / "m.png")
    return folder / f"a.{kind}", folder / "m.png", mask > 0


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_sizes_decide_orientation_of_oblong_images(tmp_path, orientation, kind):
    image, mask, hole = write(tmp_path, OBLONG, orientation, kind)
    turned = upright(hole, orientation)
    found = read_inputs(image, mask)
    np.testing.assert_array_equal(found.hole, turned)
    assert found.warnings == ()
    Image.fromarray(turned[..., 0]).save(mask)
    np.testing.assert_array_equal(read_inputs(image, mask).hole, turned)
    # A mask of half the size lies as the mask does from which it was made.
    half = MaskOptions(resize=True)
    np.testing.assert_array_equal(
        read_inputs(image, hole[::2, ::2], None, half).hole,
        upright(hole[::2, ::2].repeat(2, 0).repeat(2, 1), orientation),
    )


@pytest.mark.parametrize("shape, orientation", [(SQUARE, 6), (SQUARE, 3), (OBLONG, 3), (OBLONG, 2)])
def test_ambiguous_orientation_warns_and_an_option_decides(tmp_path, shape, orientation):
    image, mask, hole = write(tmp_path, shape, orientation)
    found = read_inputs(image, mask)
    np.testing.assert_array_equal(found.hole, hole)
    (warning,) = found.warnings
    assert "a.jpg is turned by its EXIF orientation" in warning and "m.png was drawn" in warning
    for choice, expected in (("upright", hole), ("stored", upright(hole, orientation))):
        found = read_inputs(image, mask, None, MaskOptions(orientation=choice))
        np.testing.assert_array_equal(found.hole, expected)
        assert found.warnings == ()


def test_mask_with_exif_orientation_is_not_ambiguous(tmp_path):
    image, mask, hole = write(tmp_path, SQUARE, 6)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(hole[..., 0].astype(np.uint8) * 255).save(mask, exif=exif)
    found = read_inputs(image, mask)
    np.testing.assert_array_equal(found.hole, upright(hole, 6))
    assert found.warnings == ()


def test_transposed_masks_are_never_stretched(tmp_path):
    image, mask, hole = write(tmp_path, OBLONG, 1)
    Image.fromarray(hole[..., 0].T).save(mask)
    for resize in (False, True):
        with pytest.raises(UsageError, match="m.png is 24x40.*lies on its side.*rotate it"):
            read_inputs(image, mask, None, MaskOptions(resize=resize))


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter(make_model("official"))


@pytest.mark.parametrize("shape", [OBLONG, SQUARE])
def test_pil_image_with_array_mask_is_not_turned(tmp_path, inpainter, shape):
    image, _, hole = write(tmp_path, shape, 6)
    picture = Image.open(image)
    np.testing.assert_array_equal(inpainter(picture, hole), inpainter(np.asarray(picture), hole))


def test_python_and_http_warn(tmp_path, inpainter):
    image, mask, hole = write(tmp_path, SQUARE, 6)
    with pytest.warns(UserWarning, match="drawn on the upright image.*mask_orientation"):
        inpainter(image, mask)
    stored = inpainter(image, mask, mask_orientation="stored")
    app = make_app(Service({"tiny": make_model("official")}), tmp_path, hosts=(), max_bytes=10**6)
    files = {"image": ("a.jpg", image.read_bytes()), "mask": ("m.png", mask.read_bytes())}
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.post("/api/inpaint", files=files)
        assert "a.jpg is turned by its EXIF orientation" in answer.headers["Deepfill-Warning"]
        answer = client.post("/api/inpaint", files=files, data={"mask_orientation": "stored"})
    assert "Deepfill-Warning" not in answer.headers
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), stored)
    changed = (stored != pictures.read(image).pixels).any(axis=-1)
    assert not changed[~upright(hole, 6)[..., 0]].any()
