"""The canvas: reading windows, pasting completions, extending and blending images."""

import numpy as np
import pytest

from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.boxes import Box
from deepfill_jax.inpaint.canvas import Canvas, blend, extend
from deepfill_jax.inpaint.windows import Window

DTYPES = [np.uint8, np.uint16, np.float32, np.float64]


def make_pixels(height, width, channels, dtype):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.uniform(-1, 1, (height, width, channels)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def make_canvas(channels=3, dtype=np.uint8, scaled=False):
    levels = np.zeros((20, 30, 1), np.uint8)
    levels[5:11, 7:15] = 1
    levels[1, 1] = 1  # A pixel of another window.
    levels[6, 8] = 2  # A pixel of a window of another level.
    size = (8, 10) if scaled else (16, 20)
    window = Window(Box(0, 2, 16, 20), Box(5, 7, 6, 8), *size)
    return Canvas(make_pixels(20, 30, channels, dtype), levels, [[window]]), window


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_paste_changes_only_the_hole_of_the_window(channels, dtype, scaled):
    canvas, window = make_canvas(channels, dtype, scaled)
    before = canvas.pixels.copy()
    image, hole = canvas.read_window(window)
    assert image.shape == (window.height, window.width, 3) and image.dtype == np.float32
    assert hole.shape == (window.height, window.width, 1) and hole.dtype == bool
    canvas.paste(window, np.full_like(image, 0.25))
    assert canvas.pixels.dtype == dtype
    inside = np.zeros((20, 30), bool)
    inside[5:11, 7:15] = True
    inside[6, 8] = False
    np.testing.assert_array_equal(canvas.pixels[~inside], before[~inside])
    exact = 0.25 if np.dtype(dtype).kind == "f" else round(1.25 / 2 * np.iinfo(dtype).max)
    np.testing.assert_allclose(canvas.pixels[inside].astype(float), exact, atol=1e-6)
    assert canvas.levels[1, 1] == 1 and canvas.levels[6, 8] == 2 and canvas.levels.sum() == 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_scaled_windows_average_known_pixels(dtype):
    canvas, window = make_canvas(dtype=dtype, scaled=True)
    image, hole = canvas.read_window(window)
    expected_hole = (canvas.levels > 0)[:16, 2:22].reshape(8, 2, 10, 2).any(axis=(1, 3))
    np.testing.assert_array_equal(hole[..., 0], expected_hole)
    seen = canvas.pixels[:16, 2:22].astype(float)
    if np.dtype(dtype).kind == "u":
        seen = seen / np.iinfo(dtype).max * 2 - 1
    means = seen.reshape(8, 2, 10, 2, 3).mean((1, 3))
    np.testing.assert_allclose(image[~expected_hole], means[~expected_hole], atol=1e-5)


def test_hole_pixels_do_not_leak_into_a_scaled_window():
    canvas, window = make_canvas(dtype=np.float32, scaled=True)
    expected = canvas.read_window(window)[0]
    canvas.pixels[canvas.levels[..., 0] > 0] = np.nan
    np.testing.assert_array_equal(canvas.read_window(window)[0], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blending(dtype):
    a, b = make_pixels(4, 5, 3, dtype), make_pixels(5, 4, 3, dtype).reshape(4, 5, 3)[::-1]
    share = np.zeros((4, 5, 1), np.float32)
    share[1], share[2] = 1, 0.25
    mixed = blend(a, b, share)
    assert mixed.dtype == dtype
    np.testing.assert_array_equal(mixed[[0, 3]], a[[0, 3]])
    np.testing.assert_array_equal(mixed[1], b[1])
    np.testing.assert_allclose(
        mixed[2].astype(float), 0.75 * a[2] + 0.25 * b[2], atol=0.51 if dtype(0.5) == 0 else 1e-6
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_extending(dtype, channels):
    pixels = make_pixels(4, 5, channels or 1, dtype)
    pixels = pixels if channels else pixels[..., 0]
    extended, mask = extend(pixels, 1, 2, 3, 4)
    assert extended.shape == (8, 11, *pixels.shape[2:]) and extended.dtype == dtype
    assert mask.shape == (8, 11, 1) and mask.dtype == bool
    np.testing.assert_array_equal(extended[1:5, 4:9], pixels)
    expected = np.ones((8, 11), bool)
    expected[1:5, 4:9] = False
    np.testing.assert_array_equal(mask[..., 0], expected)
    grey = {"uint8": 128, "uint16": 32768}.get(np.dtype(dtype).name, 0)
    assert (extended[expected] == grey).all()
    same, nowhere = extend(pixels, 0, 0, 0, 0)
    np.testing.assert_array_equal(same, pixels)
    assert not nowhere.any()


def test_extend_rejects_negative_margins():
    with pytest.raises(UsageError, match="0 or more pixels per side, not by 1, 0, -2, 0"):
        extend(np.zeros((4, 4), np.uint8), 1, 0, -2, 0)


def test_thin_lines_stay_when_a_window_is_scaled_down():
    hole, sketch = (np.zeros((64, 64, 1), bool) for _ in range(2))
    hole[16:48, 16:48] = True
    sketch[:, 33] = True
    whole = Box(0, 0, 64, 64)
    window = Window(whole, Box(16, 16, 32, 32), 8, 8)
    canvas = Canvas(make_pixels(64, 64, 3, np.uint8), hole.astype(np.uint8), [[window]], sketch)
    _, seen, lines = canvas.read_window(window)
    expected = sketch & hole  # Eight pixels each way, any of which counts.
    np.testing.assert_array_equal(lines, expected.reshape(8, 8, 8, 8, 1).any(axis=(1, 3)))
    assert lines[2:6, 4].all() and lines.sum() == 4 and not (lines & ~seen).any()
    canvas.paste(window, np.zeros((8, 8, 3), np.float32))
    assert not canvas.read_window(window)[2].any()  # What is filled needs no lines.
