"""The windows through which a hole is filled, and the dilation of holes."""

import numpy as np
import pytest
from scipy import ndimage

from deepfill_jax.inpaint.boxes import Box, hole_boxes, pooled
from deepfill_jax.inpaint.classical import Classical
from deepfill_jax.inpaint.mask_edges import dilate, feather
from deepfill_jax.inpaint.windows import STRATEGIES, Window, plan_windows

WORKING = 64


def with_holes(height, width, *boxes):
    """A mask with a hole in each box (top, left, height, width)."""
    mask = np.zeros((height, width, 1), bool)
    for box in boxes:
        mask[Box(*box).slices] = True
    return mask


def crop(mask):
    plan = plan_windows(mask, "crop", WORKING)
    return [window for stage in plan.stages for window in stage]


def assert_fills_once(mask, plan):
    """Asserts that every hole pixel is filled by one window, which reads it, and nothing else is.

    No window of a stage reads what another one of the stage fills.
    """
    left = plan.levels.copy()
    np.testing.assert_array_equal(left > 0, mask)
    for stage in plan.stages:
        filled_by = np.zeros(mask.shape, int)
        for number, window in enumerate(stage, start=1):
            assert 1 <= window.height <= WORKING and 1 <= window.width <= WORKING
            view = np.zeros(mask.shape, bool)
            view[window.view.slices] = True
            assert view.sum() == window.view.height * window.view.width
            assert view[window.hole.slices].all()
            here = left[window.hole.slices] == window.level
            assert here.any() and not filled_by[window.hole.slices][here].any()
            filled_by[window.hole.slices][here] = number
        for number, window in enumerate(stage, start=1):
            assert set(np.unique(filled_by[window.view.slices])) <= {0, number}
        left[filled_by > 0] = 0
    assert not left.any()


def test_small_hole_has_an_unscaled_window_of_the_working_size():
    (window,) = crop(with_holes(300, 400, (100, 200, 10, 20)))
    assert window == Window(Box(73, 178, 64, 64), Box(100, 200, 10, 20), 64, 64)


def test_windows_stay_in_the_image():
    for corner in [(0, 0), (0, 390), (290, 0), (290, 390)]:
        (window,) = crop(with_holes(300, 400, (*corner, 10, 10)))
        assert window.view[2:] == (64, 64)
    (window,) = crop(with_holes(20, 400, (5, 100, 10, 10)))
    assert window == Window(Box(0, 73, 20, 64), Box(5, 100, 10, 10), 20, 64)


def test_thick_hole_is_scaled_down_with_its_context():
    mask = with_holes(500, 600, (100, 200, 100, 80))
    (window,) = crop(mask)
    assert window.hole == Box(100, 200, 100, 80) and window.level == 3
    assert 150 <= window.view.height == window.view.width <= 180  # Twice 80, up to a grid cell.
    assert (window.height, window.width) == (64, 64)


def test_distant_holes_have_their_own_windows_and_nearby_holes_share_one():
    far = with_holes(400, 400, (10, 10, 8, 8), (300, 300, 8, 8), (10, 300, 8, 8))
    assert len(crop(far)) == 3
    near = with_holes(400, 400, (100, 100, 8, 8), (100, 112, 8, 8))
    assert [window.hole for window in crop(near)] == [Box(100, 100, 8, 20)]
    # These are not adjacent, but fit into one window with enough context.
    apart = with_holes(400, 400, (100, 100, 4, 4), (110, 138, 4, 4))
    assert [window.hole for window in crop(apart)] == [Box(100, 100, 14, 42)]


def test_thin_holes_are_filled_at_full_size_whatever_their_length():
    diagonal = np.zeros((500, 500, 1), bool)
    diagonal[np.arange(500), np.arange(500)] = True
    wire = with_holes(300, 500, (100, 0, 3, 500))
    fence = with_holes(500, 500, *((0, x, 500, 5) for x in range(0, 500, 40)))
    for mask in (diagonal, wire, fence):
        plan = plan_windows(mask, "crop", WORKING)
        assert plan.scale == 1.0
        assert_fills_once(mask, plan)


def test_thick_part_does_not_blur_the_thin_part_of_the_same_hole():
    mask = with_holes(800, 800, (300, 300, 200, 200), (395, 0, 8, 800))
    plan = plan_windows(mask, "crop", WORKING)
    assert_fills_once(mask, plan)
    levels = [window.level for stage in plan.stages for window in stage]
    assert levels == sorted(levels, reverse=True) and levels[0] == 4 and levels[-1] == 1
    assert (plan.levels[395:403, :200] == 1).all() and (plan.levels[300:500, 300:500] == 4).all()


def test_another_hole_leaves_the_windows_of_the_first_as_they_are():
    first = (100, 100, 20, 20)
    (alone,) = crop(with_holes(2000, 2000, first))
    windows = crop(with_holes(2000, 2000, first, (1000, 1000, 500, 500)))
    assert alone in windows and min(window.scale for window in windows) < 0.1


def test_dense_specks_share_windows():
    mask = np.zeros((1000, 1000, 1), bool)
    mask[::15, ::15] = True  # 4,489 specks.
    plan = plan_windows(mask, "crop", WORKING)
    assert_fills_once(mask, plan)
    assert sum(map(len, plan.stages)) <= (1000 / 48 + 1) ** 2
    assert len(plan.stages) <= 6


@pytest.mark.parametrize("seed", range(30))
def test_every_hole_pixel_is_filled_once(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 400, 2)
    mask = rng.uniform(size=(height, width, 1)) < 10.0 ** -rng.integers(0, 5)
    for _ in range(rng.integers(4)):
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + rng.integers(1, 250), left : left + rng.integers(1, 250)] = True
    for strategy in ("crop", "resize"):
        assert_fills_once(mask, plan_windows(mask, strategy, WORKING))


def test_original_and_resize_use_the_whole_image():
    mask = with_holes(100, 400, (10, 10, 8, 8))
    whole = Box(0, 0, 100, 400)
    assert plan_windows(mask, "original", WORKING).stages == [[Window(whole, whole, 100, 400)]]
    assert plan_windows(mask, "resize", WORKING).stages == [[Window(whole, whole, 16, 64)]]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("side", [10, 300])
def test_mask_without_hole_has_no_windows(strategy, side):
    plan = plan_windows(with_holes(side, side), strategy, WORKING)
    assert not any(plan.stages) and plan.scale == 1.0 and plan.strategy != "auto"


def test_hole_that_covers_the_image_is_one_window():
    plan = plan_windows(np.ones((300, 500, 1), bool), "crop", WORKING)
    ((window,),) = plan.stages
    assert window.view == window.hole == Box(0, 0, 300, 500)


def test_auto_reads_small_images_whole_and_large_images_in_windows():
    def choose(*arguments):
        return plan_windows(with_holes(*arguments), "auto", WORKING)

    assert choose(128, 128, (0, 0, 100, 100)).strategy == "original"
    assert choose(129, 20, (0, 0, 10, 10)).strategy == "crop"
    plan = choose(400, 400, (0, 0, 100, 100), (300, 300, 9, 9))
    assert plan.strategy == "crop" and plan.stages[-1][0].scale == 1.0


def test_auto_chooses_the_largest_scale_within_the_budget():
    mask = np.zeros((1000, 1000, 1), bool)
    mask[::15] = True
    sharp = plan_windows(mask, "crop", WORKING)
    assert sharp.scale == 1.0 and sharp.megapixels > 1
    whole = WORKING**2 / 1e6  # The whole image in one window.
    for budget, scale in ((32, 1), (1, 0.5), (0.3, 0.25), (0.1, 0.125), (whole, WORKING / 1000)):
        plan = plan_windows(mask, "auto", WORKING, budget)
        assert plan.scale == pytest.approx(scale) and plan.megapixels <= budget
        assert_fills_once(mask, plan)
    assert plan_windows(mask, "crop", WORKING, budget=0.1).megapixels == sharp.megapixels


def test_megapixels_are_those_of_the_scaled_windows():
    mask = with_holes(100, 400, (10, 10, 8, 8))
    assert plan_windows(mask, "original", WORKING).megapixels == 100 * 400 / 1e6
    assert plan_windows(mask, "resize", WORKING).megapixels == 16 * 64 / 1e6
    assert plan_windows(np.zeros_like(mask), "auto", WORKING).megapixels == 0


def test_classical_methods_see_the_whole_image_whatever_the_budget():
    mask = with_holes(300, 500, (9, 9, 5, 5), (200, 400, 50, 50))
    plan = plan_windows(mask, "auto", Classical.metadata["image_size"], 0.01)
    ((window,),) = plan.stages
    assert window.view == Box(0, 0, 300, 500) and plan.scale == 1.0


def test_budget_below_a_single_window_leaves_one():
    for side in (2 * WORKING, 500):
        plan = plan_windows(with_holes(side, side, (9, 9, 5, 5), (90, 9, 5, 5)), "auto", 64, 1e-6)
        ((window,),) = plan.stages
        assert plan.strategy == "crop" and max(window.height, window.width) == WORKING


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


@pytest.mark.parametrize("seed", range(5))
def test_edges_of_distant_holes_equal_those_of_the_whole_image(seed):
    rng = np.random.default_rng(seed)
    mask = rng.uniform(size=(300, 200, 1)) < 1e-4
    mask[: rng.integers(1, 20), : rng.integers(1, 20)] = True
    dilated = dilate(mask, 7)
    expected = ndimage.distance_transform_edt(~mask[..., 0]) <= 7
    np.testing.assert_array_equal(dilated[..., 0], expected)
    depth = ndimage.distance_transform_edt(np.pad(expected, 1, mode="edge"))[1:-1, 1:-1]
    rim = np.where(mask[..., 0], 1, np.minimum(depth / 6, 1))
    np.testing.assert_allclose(feather(mask, dilated, 5)[..., 0], rim, rtol=1e-6)


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


def test_cells_larger_than_the_image_take_no_memory():
    mask = np.zeros((30, 40, 1), bool)
    mask[5:8, 9:20] = True
    cell = 1 << 40
    assert hole_boxes(mask, cell) == [Box(5, 9, 3, 11)]
    assert pooled(mask, cell, whole=False).tolist() == [[True]]
    assert pooled(mask, cell, whole=True).tolist() == [[False]]
