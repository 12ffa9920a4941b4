"""Images in memory: encoded bytes, file objects, floats of other ranges, and writing a result."""

import io
import tempfile

import numpy as np
import pytest
from made import make_model, make_picture
from PIL import Image

from deepfill_jax import pictures
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import Inpainter


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter(make_model("official"))


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file  # At its end, as after any writing.


def test_bytes_and_file_objects_are_read(inpainter, tmp_path):
    image, mask = make_picture(16, 24)
    expected = inpainter(image, mask)
    data = encoded(image).getvalue()
    (tmp_path / "a.png").write_bytes(data)
    with tempfile.NamedTemporaryFile() as temporary, open(tmp_path / "a.png", "rb") as opened:
        temporary.write(data)
        for source in (data, bytearray(data), memoryview(data), encoded(image), temporary, opened):
            np.testing.assert_array_equal(inpainter(source, encoded(mask)), expected)
    for both in inpainter([data, encoded(image)], encoded(mask).getvalue()):
        np.testing.assert_allclose(both, expected.astype(int), atol=1)


def test_unreadable_files_in_memory_raise_clear_errors(inpainter, tmp_path):
    _, mask = make_picture(16, 24)
    with pytest.raises(UsageError, match="^The image cannot be read as an image: it is empty"):
        inpainter(b"", mask)
    with pytest.raises(UsageError, match="^The image cannot be read as an image: it is not a JPEG"):
        inpainter(io.BytesIO(b"no picture"), mask)
    (tmp_path / "a.txt").write_text("text")
    with open(tmp_path / "a.txt") as text:
        with pytest.raises(UsageError, match="a.txt .*it is open as text; open it with mode 'rb'"):
            inpainter(text, mask)


@pytest.mark.parametrize("value_range", [(0, 1), (0, 255), (-1, 1), (-0.5, 0.5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("edges", [{}, {"dilate": 3, "feather": 2}])
def test_value_range_applies_to_image_and_result(inpainter, value_range, dtype, edges):
    image, mask = make_picture(16, 24)
    mask[:, :12] = 0
    black, white = value_range
    floats = (image / 255 * (white - black) + black).astype(dtype)
    expected = inpainter((image / 127.5 - 1).astype(dtype), mask, value_range=(-1, 1), **edges)
    completed = inpainter(floats, mask, value_range=value_range, **edges)
    assert completed.dtype == dtype
    known = (completed == floats).all(axis=-1)
    assert known[:, :9].all() and not known[mask > 0].any()
    mapped = (completed - black) / (white - black) * 2 - 1
    np.testing.assert_allclose(mapped, expected, atol=1e-3)


def test_floats_from_0_to_1_warn(inpainter, recwarn):
    image, mask = make_picture(16, 24)
    floats = (image / 255).astype(np.float32)
    with pytest.warns(UserWarning, match=r"from 0 to 1, but are read as \[-1, 1\].*value_range"):
        inpainter(floats, mask)
    hole = mask[np.newaxis, ..., np.newaxis] > 0
    with pytest.warns(UserWarning, match=r"predict needs \[-1, 1\]; map them with 2 \* image - 1"):
        inpainter.predict(floats[np.newaxis], hole)
    recwarn.clear()
    inpainter(floats, mask, value_range=(0, 1))
    inpainter(floats, mask, value_range=(-1, 1))
    inpainter(2 * floats - 1, mask)
    inpainter.predict(2 * floats[np.newaxis] - 1, hole)
    assert not recwarn.list


def test_values_outside_the_range_are_rejected(inpainter):
    image, mask = make_picture(16, 24)
    with pytest.raises(UsageError, match=r"in \[-1, 1\]; pass its .* value_range=\(0, 255\)"):
        inpainter(image.astype(np.float32), mask)
    with pytest.raises(UsageError, match=r"must be in \[0, 1\]"):
        inpainter(image / 127.5 - 1, mask, value_range=(0, 1))
    with pytest.raises(UsageError, match=r"predict needs pixels in \[-1, 1\]; map 0 to 255"):
        inpainter.predict(image[np.newaxis].astype(np.float32), mask[np.newaxis, ..., np.newaxis])
    for wrong in ((1, 0), (0, np.nan), (0,), 1, ("a", "b")):
        with pytest.raises(UsageError, match="must be two finite numbers, black and white"):
            inpainter(image, mask, value_range=wrong)


@pytest.mark.parametrize("grey", [False, True])
def test_results_are_written_with_profile_and_exif(inpainter, tmp_path, grey):
    image, mask = make_picture(16, 24)
    exif = Image.Exif()
    exif[0x010F], exif[274] = "a camera", 6
    photo = tmp_path / "photo.jpg"
    pixels = image[..., 0] if grey else image
    photo.write_bytes(encoded(pixels, "JPEG", exif=exif, icc_profile=b"profile").getvalue())
    read = pictures.read(photo)
    completed = inpainter(read, mask.T)
    assert completed.shape == read.pixels.shape == (24, 16, 1 if grey else 3)
    pictures.write(tmp_path / "completed.png", completed, read)
    with Image.open(tmp_path / "completed.png") as written:
        assert written.info["icc_profile"] == b"profile"
        assert written.getexif()[0x010F] == "a camera"
        np.testing.assert_array_equal(np.asarray(written), completed.squeeze())
