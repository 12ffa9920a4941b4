"""Which windows a hole is filled through, and how holes are widened."""

import numpy as np
import pytest

from deepfill_jax.inpaint.mask_edges import dilate, feather
from deepfill_jax.inpaint.windows import STRATEGIES, Box, Window, choose_strategy, find_windows

WORKING = 64


def with_holes(height, width, *boxes):
    """A mask with a hole in each box (top, left, height, width)."""
    mask = np.zeros((height, width, 1), bool)
    for box in boxes:
        mask[Box(*box).slices] = True
    return mask


def crop(mask):
    return find_windows(mask, "crop", WORKING)


def assert_filled_once(mask, windows):
    """Every hole pixel is taken from one window, which sees it, at the working size at most."""
    times = np.zeros(mask.shape[:2], int)
    for window in windows:
        times[window.hole.slices] += 1
        seen = np.zeros(mask.shape[:2], bool)
        seen[window.view.slices] = True
        assert seen[window.hole.slices].all() and seen.sum() == window.view[2] * window.view[3]
        assert 1 <= window.height <= WORKING and 1 <= window.width <= WORKING
    np.testing.assert_array_equal(times[mask[..., 0]], 1)


def test_small_hole_has_an_unscaled_window_of_the_working_size():
    (window,) = crop(with_holes(300, 400, (100, 200, 10, 20)))
    assert window == Window(Box(73, 178, 64, 64), Box(100, 200, 10, 20), 64, 64)


def test_windows_stay_in_the_image():
    for corner in [(0, 0), (0, 390), (290, 0), (290, 390)]:
        (window,) = crop(with_holes(300, 400, (*corner, 10, 10)))
        assert window.view[2:] == (64, 64)
        assert_filled_once(with_holes(300, 400, (*corner, 10, 10)), [window])
    (window,) = crop(with_holes(20, 400, (5, 100, 10, 10)))
    assert window == Window(Box(0, 73, 20, 64), Box(5, 100, 10, 10), 20, 64)


def test_large_hole_is_scaled_down_with_its_context():
    mask = with_holes(500, 600, (100, 200, 100, 80))
    (window,) = crop(mask)
    assert window == Window(Box(50, 140, 200, 200), Box(100, 200, 100, 80), 64, 64)


def test_distant_holes_have_own_windows_and_nearby_holes_share_one():
    far = with_holes(400, 400, (10, 10, 8, 8), (300, 300, 8, 8), (10, 300, 8, 8))
    assert len(crop(far)) == 3
    near = with_holes(400, 400, (100, 100, 8, 8), (100, 112, 8, 8))
    assert [window.hole for window in crop(near)] == [Box(100, 100, 8, 20)]
    # The second's box lies in the first's, an angle, though no pixel of it is near.
    inside = with_holes(400, 400, (100, 100, 60, 9), (151, 100, 9, 60), (110, 140, 4, 4))
    assert [window.hole for window in crop(inside)] == [Box(100, 100, 60, 60)]
    assert_filled_once(far, crop(far))


def test_thin_holes_are_split_at_full_size():
    diagonal = np.zeros((500, 500, 1), bool)
    diagonal[np.arange(500), np.arange(500)] = True
    wire = with_holes(300, 500, (100, 0, 3, 500))
    for mask in (diagonal, wire):
        windows = crop(mask)
        assert len(windows) > 3
        assert all(window.view[2:] == (window.height, window.width) for window in windows)
        assert_filled_once(mask, windows)


@pytest.mark.parametrize("seed", range(20))
def test_every_hole_pixel_is_filled_once(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 300, 2)
    mask = rng.uniform(size=(height, width, 1)) < 10.0 ** -rng.integers(0, 5)
    for _ in range(rng.integers(4)):
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + rng.integers(1, 150), left : left + rng.integers(1, 150)] = True
    assert_filled_once(mask, crop(mask))
    assert_filled_once(mask, find_windows(mask, "resize", WORKING))


def test_original_and_resize_use_the_whole_image():
    mask = with_holes(100, 400, (10, 10, 8, 8))
    whole = Box(0, 0, 100, 400)
    assert find_windows(mask, "original", WORKING) == [Window(whole, whole, 100, 400)]
    assert find_windows(mask, "resize", WORKING) == [Window(whole, whole, 16, 64)]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_mask_without_hole_has_no_windows(strategy):
    assert find_windows(with_holes(10, 10), strategy, WORKING) == []


def test_auto():
    def choose(*arguments):
        return choose_strategy(with_holes(*arguments), WORKING)

    assert choose(128, 128, (0, 0, 100, 100)) == "original"
    assert choose(129, 20, (0, 0, 10, 10)) == "crop"
    assert choose(400, 400, (0, 0, 100, 100), (300, 300, 9, 9)) == "crop"
    assert choose(400, 400, (0, 0, 300, 300)) == "resize"


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_dilation_uses_discs(radius):
    mask = np.random.default_rng(radius).uniform(size=(20, 30, 1)) < 0.01
    rows, columns = np.mgrid[:20, :30]
    expected = np.zeros_like(mask)
    for row, column in np.argwhere(mask[..., 0]):
        expected[..., 0] |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    np.testing.assert_array_equal(dilate(mask, radius), expected)
    empty = np.zeros_like(mask)
    np.testing.assert_array_equal(dilate(empty, radius), empty)


def test_feather_weight_grows_only_in_the_rim():
    mask = with_holes(1, 20, (0, 8, 1, 4))
    dilated = dilate(mask, 4)
    share = feather(mask, dilated, 3)[0, :, 0]
    np.testing.assert_allclose(share[3:9], [0, 0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_array_equal(share, share[::-1])
    np.testing.assert_array_equal(feather(mask, dilated, 0), dilated)
    # A rim at the picture's edge has nothing to blend with there.
    mask = with_holes(1, 9, (0, 1, 1, 1))
    assert feather(mask, dilate(mask, 1), 1)[0, 0, 0] == 1.0
    everything = np.ones_like(mask)
    np.testing.assert_array_equal(feather(mask, everything, 1), everything)
