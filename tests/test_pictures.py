"""Reading pictures and masks as people have them."""

import numpy as np
import pytest
from made import make_picture
from PIL import Image

from deepfill_jax.pictures import read_image, read_mask


@pytest.mark.parametrize(
    "values, hole",
    [
        ([0, 1, 127, 128, 255], [0, 0, 0, 1, 1]),
        ([0, 2, 127, 0, 3], [0, 0, 0, 0, 0]),
        ([0, 1, 0, 1, 1], [0, 1, 0, 1, 1]),
        ([False, True], [0, 1]),
        ([0.0, 0.5, 0.51, 1.0], [0, 0, 1, 1]),
        ([0.0, 0.4, 0.9], [0, 0, 1]),
        ([0.0, 255.0, 127.5], [0, 1, 1]),
        ([0, 0], [0, 0]),
    ],
)
def test_mask_values(values, hole):
    expected = np.array(hole, bool)[np.newaxis, :, np.newaxis]
    values = np.array([values])
    np.testing.assert_array_equal(read_mask(values), expected)
    if values.dtype == int:
        np.testing.assert_array_equal(read_mask(Image.fromarray(values.astype(np.uint8))), expected)


def test_files_are_turned_upright(tmp_path):
    picture, mask = make_picture(7, 5)
    exif = Image.Exif()
    exif[274] = 6  # Orientation: shown turned by 90 degrees clockwise.
    for array, read in ((picture, read_image), (mask, read_mask)):
        Image.fromarray(array).save(tmp_path / "turned.png", exif=exif)
        np.testing.assert_array_equal(
            read(tmp_path / "turned.png"), np.rot90(read(array), axes=(1, 0))
        )


def test_grey_pictures_become_rgb(tmp_path):
    grey = make_picture(7, 5)[0][..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=-1))
