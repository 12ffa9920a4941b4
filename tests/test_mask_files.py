"""Tests of reading mask files: binary, grey, colour, 16-bit and painted layers."""

import numpy as np
import pytest
from PIL import Image

from deepfill_jax import masks
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import MaskOptions, hole_of_values, read_mask, resize_mask

INVERTED = MaskOptions(invert=True, check=False)


def hole(values):
    return np.array([values], bool)[..., np.newaxis]


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0, 1, 127, 128, 255], [0, 0, 0, 1, 1]),
        ([0, 2, 127, 0, 3], [0, 0, 0, 0, 0]),
        ([0, 1, 0, 1, 1], [0, 1, 0, 1, 1]),
        ([0, 256, 32767, 32768, 65535], [0, 0, 0, 1, 1]),
        ([False, True], [0, 1]),
        ([0.0, 0.5, 0.51, 1.0], [0, 0, 1, 1]),
        ([0.0, 0.4, 0.9], [0, 0, 1]),
        ([0.0, 255.0, 127.5, 127.6], [0, 1, 0, 1]),
        ([0, 0], [0, 0]),
    ],
)
def test_hole_is_the_upper_half_of_the_value_scale(values, expected):
    values = np.array([values])
    np.testing.assert_array_equal(hole_of_values(values), hole(expected))
    np.testing.assert_array_equal(hole_of_values(values[..., np.newaxis]), hole(expected))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.longdouble])
def test_masks_of_any_number_type_are_read(dtype):
    np.testing.assert_array_equal(hole_of_values(np.array([[0, 1]], dtype)), hole([0, 1]))


def test_threshold_is_a_fraction_of_the_value_scale():
    greys = np.array([[0, 51, 52, 255]])
    low, zero = MaskOptions(threshold=0.2, check=False), MaskOptions(threshold=0, check=False)
    np.testing.assert_array_equal(hole_of_values(greys, low), hole([0, 0, 1, 1]))
    np.testing.assert_array_equal(hole_of_values(greys / 255, zero), hole([0, 1, 1, 1]))
    for threshold in (1, -0.1, 128, np.nan):
        with pytest.raises(UsageError, match=f"from 0 to below 1, not {threshold}"):
            hole_of_values(greys, MaskOptions(threshold=threshold))


@pytest.mark.parametrize(
    "values, problem",
    [
        (np.zeros((4, 4, 2)), r"must be numbers .*float64 \(4, 4, 2\)"),
        (np.zeros((4, 4, 4), int), r"unsigned or floats\), not int64 \(4, 4, 4\)"),
        (np.zeros((0, 4)), r"\(0, 4\)"),
        (np.zeros(4), r"\(4,\)"),
        (None, "object"),
        (np.array([["a"]]), "<U1"),
        (np.array([[70000]]), "from 0 to 65535, not 70000 to 70000; map them"),
        (np.array([[0, np.nan]]), "from 0 to 65535, not nan"),
        (np.array([[np.inf]]), "not inf"),
        (np.array([[-1, 0, 1]]), "from 0 to 65535, not -1 to 1; map them to 0"),
    ],
)
def test_invalid_mask_arrays_are_refused(values, problem):
    with pytest.raises(UsageError, match=problem):
        hole_of_values(values)


EXPECTED = np.array([[1, 0, 0], [0, 1, 1]], bool)[..., np.newaxis]
BINARY = EXPECTED[..., 0].astype(np.uint8)
GREY = 255 * BINARY


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(GREY),
        Image.fromarray(BINARY),
        Image.fromarray(GREY).convert("1"),
        Image.fromarray(GREY).convert("P"),
        Image.fromarray(GREY).convert("RGB"),
        Image.fromarray(GREY).convert("RGBA"),
        Image.fromarray(GREY).convert("LA"),
        Image.fromarray(GREY).convert("CMYK"),
        Image.fromarray(BINARY).convert("RGB"),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        Image.fromarray(BINARY.astype(np.uint16)),
        Image.fromarray(BINARY.astype(np.int32)),
        Image.fromarray(BINARY.astype(np.float32)),
        Image.fromarray(GREY.astype(np.float32)),
        Image.fromarray(np.where(EXPECTED, [90, 255, 90], [60, 60, 120]).astype(np.uint8)),
    ],
    ids=lambda mask: f"{mask.mode}-{mask.getextrema()}",
)
def test_masks_of_any_image_mode_are_read(tmp_path, mask):
    path = tmp_path / "mask.tif"
    mask.save(path)
    for source in (mask, path, str(path)):
        np.testing.assert_array_equal(read_mask(source), EXPECTED)
        np.testing.assert_array_equal(read_mask(source, INVERTED), ~EXPECTED)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_arrays_are_read_like_colour_files(mode):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (9, 8, len(mode)), np.uint8)
    values[:3, ..., 3:] = 0
    expected = read_mask(Image.fromarray(values))
    assert expected.any() and not expected.all()
    np.testing.assert_array_equal(hole_of_values(values), expected)
    np.testing.assert_array_equal(hole_of_values(values.astype(np.uint16) * 257), expected)
    np.testing.assert_array_equal(hole_of_values(values / np.float32(255)), expected)
    binary = np.repeat(EXPECTED, 3, axis=2)
    for dtype in (bool, np.uint8, np.int64, np.float32):
        np.testing.assert_array_equal(hole_of_values(binary.astype(dtype)), EXPECTED)
    # The layer is painted in black.
    layer = np.concatenate([binary ^ binary, EXPECTED], axis=2) * np.uint8(255)
    np.testing.assert_array_equal(hole_of_values(layer), EXPECTED)


def test_dark_colours_are_not_masks_of_0_and_1():
    blue = np.array([[[0, 0, 9], [0, 0, 0]]], np.uint8)
    assert not hole_of_values(blue).any() and not read_mask(Image.fromarray(blue)).any()


def test_16_bit_colour_masks_are_read(tmp_path):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.png"), np.where(EXPECTED, [32768] * 3, 32767).astype(np.uint16))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), EXPECTED)


def test_masks_follow_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # Orientation: the image is displayed rotated by 90 degrees clockwise.
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), np.rot90(EXPECTED, -1))


def layer(colours, alpha):
    """Makes an RGBA mask of one row."""
    both = np.concatenate([np.array(colours), np.array(alpha)[:, np.newaxis]], axis=1)
    return Image.fromarray(both[np.newaxis].astype(np.uint8))


BLACK, RED, WHITE = (0, 0, 0), (255, 0, 0), (255, 255, 255)


@pytest.mark.parametrize(
    "colours, alpha, expected",
    [
        # Opaque pixels of a single colour on a transparent layer are the hole.
        ([RED, RED, RED], [255, 0, 100], [1, 0, 0]),
        ([BLACK, WHITE, RED], [255, 0, 0], [1, 0, 0]),
        ([WHITE, BLACK, WHITE], [255, 0, 128], [1, 0, 1]),
        # With several colours, opaque white is the hole.
        ([WHITE, BLACK, WHITE], [255, 255, 0], [1, 0, 0]),
        ([WHITE, BLACK, WHITE], [255, 255, 100], [1, 0, 0]),
        ([RED, WHITE, WHITE], [255, 255, 255], [0, 1, 1]),
        # If all pixels are opaque or all are transparent, alpha is ignored.
        ([BLACK, BLACK, BLACK], [255, 255, 255], [0, 0, 0]),
        ([WHITE, WHITE, WHITE], [255, 255, 255], [1, 1, 1]),
        ([WHITE, WHITE, WHITE], [0, 0, 0], [0, 0, 0]),
        # A nearly transparent layer must not be taken for a mask of 0 and 1.
        ([WHITE, BLACK, WHITE], [1, 1, 0], [0, 0, 0]),
        ([RED, RED, RED], [1, 0, 0], [0, 0, 0]),
    ],
)
def test_painted_layers_are_read_by_colour_and_alpha(colours, alpha, expected):
    mask = layer(colours, alpha)
    np.testing.assert_array_equal(read_mask(mask), hole(expected))
    np.testing.assert_array_equal(read_mask(mask, INVERTED), ~hole(expected))


def test_unusable_mask_file_is_named(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(path)
    with pytest.raises(UsageError, match="a.tif cannot be used as a mask: .*not 0 to 70000"):
        read_mask(path)
    with pytest.raises(UsageError, match="a.png cannot be read as an image: No such file"):
        read_mask(tmp_path / "a.png")
    with pytest.raises(UsageError, match="2x1 pixels .* the limit of 1;"):
        read_mask(path, max_pixels=1)


@pytest.mark.parametrize("height, width", [(2, 3), (4, 6), (1, 1), (5, 7), (3, 2), (200, 1)])
def test_masks_are_resized_by_nearest_neighbour(height, width):
    resized = resize_mask(EXPECTED, height, width)
    nearest = Image.fromarray(GREY).resize((width, height), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resized, np.asarray(nearest)[..., np.newaxis] > 0)
    assert resized.dtype == bool


def test_masks_for_training_are_contiguous_because_workers_send_their_bytes(tmp_path):
    Image.fromarray(np.uint8(255) * EXPECTED[..., 0]).save(tmp_path / "a.png")
    for side in (EXPECTED.shape[0], 64):
        assert masks.from_file(tmp_path / "a.png", side, side).flags.c_contiguous
