"""Random hole masks, mask files and the sampler."""

import functools
import math
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from deepfill_jax import masks
from deepfill_jax.errors import UsageError

any_irregular = functools.partial(masks.irregular, min_area=0.0, max_area=1.01)
KINDS = {
    "box": masks.box,
    "strokes": masks.brush_strokes,
    "box_and_strokes": masks.box_and_strokes,
    "irregular": any_irregular,
}
all_kinds = pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS.keys())


def make_rng(*seed):
    return np.random.default_rng(seed)


def make_sampler(kinds, *, min_area=0.15, max_area=0.65, folder=""):
    return masks.sampler(kinds, min_area=min_area, max_area=max_area, folder=folder)


def record(monkeypatch, name):
    """Records the arguments of each call of an OpenCV drawing function."""
    calls = []
    draw = getattr(cv2, name)

    def spy(mask, *points, **style):
        calls.append((*points, style["thickness"]))
        return draw(mask, *points, **style)

    monkeypatch.setattr(cv2, name, spy)
    return calls


@all_kinds
@pytest.mark.parametrize(
    "size", [(1, 1), (2, 2), (7, 5), (16, 16), (64, 64), (40, 300), (256, 256)]
)
def test_masks_are_binary_and_never_empty(draw, size):
    for seed in range(30):
        mask = draw(make_rng(seed), *size)
        assert mask.shape == (*size, 1) and mask.dtype == np.uint8
        assert set(np.unique(mask)) in ({1}, {0, 1})


@all_kinds
def test_seed_determines_the_mask(draw):
    first = [draw(make_rng(0, index), 64, 64) for index in range(20)]
    again = [draw(make_rng(0, index), 64, 64) for index in range(20)]
    np.testing.assert_array_equal(first, again)
    assert len({mask.tobytes() for mask in first}) == 20


@all_kinds
def test_mask_area_scales_with_the_image(draw):
    areas = [
        np.mean([draw(make_rng(seed), size, size).mean() for seed in range(300)])
        for size in (64, 256, 512)
    ]
    np.testing.assert_allclose(areas, areas[1], rtol=0.12)


def test_box_sides_and_positions_match_tf1_release():
    heights, widths, tops, bottoms = set(), set(), set(), set()
    for seed in range(3000):
        rows, columns = np.nonzero(masks.box(make_rng(seed), 256, 256)[..., 0])
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert rows.size == height * width
        heights.add(height), widths.add(width), tops.add(rows.min()), bottoms.add(rows.max())
    assert heights == widths == set(range(96, 129, 2))
    assert min(tops) <= 1 and max(bottoms) in (253, 254)


def test_stroke_counts_and_brushes_match_tf1_release(monkeypatch):
    calls = record(monkeypatch, "polylines")
    strokes, vertices, brushes = set(), set(), set()
    for seed in range(600):
        calls.clear()
        masks.brush_strokes(make_rng(seed), 256, 256)
        strokes.add(len(calls))
        vertices |= {len(points) for (points,), _ in calls}
        brushes |= {brush for _, brush in calls}
    assert strokes == {1, 2, 3}
    assert vertices == set(range(5, 13))  # The start and 4 to 11 further vertices.
    assert brushes == set(range(12, 40))


def test_strokes_turn_back_at_every_vertex(monkeypatch):
    size = 2000  # At this size, rounding to pixels hardly changes the angles.
    calls = record(monkeypatch, "polylines")
    for seed in range(150):
        masks.brush_strokes(make_rng(seed), size, size)
    angles, lengths = [], []
    for (points,), _ in calls:
        right, down = np.diff(points, axis=0).T
        assert (down[::2] <= 0).all() and (down[1::2] >= 0).all()
        inside = ((points[1:] > 0) & (points[1:] < size)).all(axis=1)  # The others were clipped.
        lengths.extend(np.hypot(right, down)[inside])
        angles.extend(np.degrees(np.arctan2(np.abs(down), right))[inside & (np.abs(down) > 100)])
    assert 47 < min(angles) < 55 and 89 < max(angles) < 97  # 72 degrees plus or minus 24.
    assert np.mean(angles) == pytest.approx(72, abs=1.5)
    mean = math.hypot(size, size) / 8
    assert max(lengths) <= 2 * mean + 2
    assert np.mean(lengths) == pytest.approx(
        mean, rel=0.07
    )  # Long segments are clipped more often.
    assert np.std(lengths) == pytest.approx(0.48 * mean, rel=0.07)


def test_thick_lines_have_a_disc_on_every_vertex(monkeypatch):
    calls = record(monkeypatch, "polylines")
    for seed in range(100):
        calls.clear()
        mask = masks.brush_strokes(make_rng(seed), 256, 256)[..., 0]
        with_discs = mask.copy()
        for (points,), brush in calls:
            for x, y in points.tolist():
                cv2.circle(with_discs, (x, y), brush // 2, 1, -1)
        np.testing.assert_array_equal(mask, with_discs)


def test_box_and_strokes_is_the_union_of_both():
    rng = make_rng(3)
    union = masks.box(rng, 256, 256) | masks.brush_strokes(rng, 256, 256)
    np.testing.assert_array_equal(masks.box_and_strokes(make_rng(3), 256, 256), union)


def test_irregular_area_is_within_its_bounds():
    for seed in range(200):
        mask = masks.irregular(make_rng(seed), 64, 64, min_area=0.3, max_area=0.35)
        assert 0.3 < mask.mean() < 0.35


def test_irregular_area_bounds_are_exclusive(monkeypatch):
    monkeypatch.setattr(masks, "MAX_DRAWS", 20)
    for low, high in [(0.5, 1.0), (1.0, 1.5)]:  # A mask of one pixel has area 1.
        with pytest.raises(UsageError, match=f"between {low} and {high}"):
            masks.irregular(make_rng(0), 1, 1, min_area=low, max_area=high)


def test_irregular_strokes_match_mmagic(monkeypatch):
    lines = record(monkeypatch, "line")
    strokes, bends, brushes, lengths, turns = set(), set(), set(), set(), {0: set(), 1: set()}
    for seed in range(400):
        lines.clear()
        any_irregular(make_rng(seed), 256, 256)
        ends = [None, *(end for _, end, _ in lines)]
        breaks = [i for i, (start, _, _) in enumerate(lines) if start != ends[i]] + [len(lines)]
        strokes.add(len(breaks) - 1)
        bends |= set(np.diff(breaks).tolist())
        brushes |= {brush for *_, brush in lines}
        for stroke, (first, last) in enumerate(zip(breaks, breaks[1:], strict=False)):
            for (x0, y0), (x1, y1), _ in lines[first:last]:
                lengths.add(math.hypot(x1 - x0, y1 - y0))
                if math.hypot(x1 - x0, y1 - y0) < 60:
                    continue  # The ends are rounded to pixels, so short lines have no exact angle.
                angle = math.atan2(y1 - y0, x1 - x0) % (2 * math.pi)
                turned = 2 * math.pi - angle if stroke % 2 == 0 else angle
                turns[stroke % 2].add(round((turned + 1.0) % (2 * math.pi) - 1.0, 1))
    assert strokes == set(range(4, 10)) and bends == set(range(1, 6))
    assert brushes == set(range(10, 45))
    assert 18.5 < min(lengths) < 21 and 125 < max(lengths) < 128.5  # 20 to 127 plus rounding.
    for parity in (0, 1):  # Integer radians from 0 to 5, negated for even strokes.
        assert {round(turn) for turn in turns[parity]} == set(range(6))
        assert all(abs(turn - round(turn)) <= 0.1 for turn in turns[parity])


def test_mask_file_is_thresholded_and_resized_by_nearest(tmp_path):
    grey = np.array([[0, 127], [128, 255]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "mask.png")
    mask = masks.from_file(tmp_path / "mask.png", 6, 4)
    np.testing.assert_array_equal(mask[..., 0], np.repeat([[0] * 4, [1] * 4], 3, axis=0))
    assert mask.dtype == np.uint8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_mask_file_of_any_mode_is_read(tmp_path, mode):
    grey = np.zeros((8, 8), np.uint16 if mode == "I;16" else np.uint8)
    grey[2:5, 1:3] = 65535 if mode == "I;16" else 255
    image = Image.fromarray(grey)
    path = tmp_path / "mask.tif"
    (image if mode == "I;16" else image.convert(mode)).save(path)
    np.testing.assert_array_equal(masks.from_file(path, 8, 8)[..., 0], grey > 0)


def test_unusable_mask_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    Image.new("L", (8, 8), 127).save(tmp_path / "dark.png")
    for name, problem in [("text", "cannot be read"), ("dark", "no hole"), ("missing", "be read")]:
        with pytest.raises(UsageError, match=f"{name}.png.*{problem}"):
            masks.from_file(tmp_path / f"{name}.png", 8, 8)


def save_large_hole(path):
    """Saves a mask whose hole is larger than any box, but not the whole image."""
    mask = Image.new("L", (8, 8), 255)
    mask.putpixel((0, 0), 0)
    mask.save(path)


@pytest.mark.parametrize(
    "values, problem",
    [
        ([0, 1, 2, 3], "has no hole.*paint all objects white"),
        ([0, 90, 200], "looks like a mask of"),
    ],
)
def test_mask_files_of_class_numbers_are_refused(tmp_path, values, problem):
    numbers = np.repeat(np.repeat(np.array([values], np.uint8), 4, axis=1), 8, axis=0)
    Image.fromarray(numbers).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=f"a.png {problem}") as error:
        masks.from_file(tmp_path / "a.png", 8, 8)
    assert str(error.value).endswith("paint all objects white.")  # There are no options.
    Image.new("L", (8, 8), 255).save(tmp_path / "full.png")
    with pytest.raises(UsageError, match="full.png makes the whole image the hole"):
        masks.from_file(tmp_path / "full.png", 8, 8)


def test_sampler_draws_each_kind_by_its_weight(tmp_path):
    save_large_hole(tmp_path / "large.png")
    draw = make_sampler({"box": 3, "folder": 1, "strokes": 0}, folder=str(tmp_path))
    large = np.mean([draw(make_rng(seed), 16, 16).mean() > 0.9 for seed in range(2000)])
    assert large == pytest.approx(0.25, abs=0.04)  # The tolerance is four standard deviations.


@pytest.mark.parametrize("kind", KINDS)
def test_sampler_of_one_kind_draws_that_kind(kind):
    draw = make_sampler({kind: 0.5}, min_area=0.0, max_area=1.01)
    rng = make_rng(5)
    rng.random()  # The sampler draws one number to choose the kind.
    np.testing.assert_array_equal(draw(make_rng(5), 64, 64), KINDS[kind](rng, 64, 64))


@pytest.mark.parametrize("kind", [*KINDS, "folder"])
def test_pickled_sampler_draws_the_same_masks(tmp_path, kind):
    save_large_hole(tmp_path / "large.png")
    draw = make_sampler({kind: 1.0, "box": 1.0}, folder=str(tmp_path))
    copy = pickle.loads(pickle.dumps(draw))
    for seed in range(5):
        np.testing.assert_array_equal(draw(make_rng(seed), 32, 32), copy(make_rng(seed), 32, 32))


def test_sampler_draws_all_files_of_a_folder_equally_often(tmp_path):
    (tmp_path / "nested").mkdir()
    (tmp_path / "notes.txt").write_text("not a mask")
    for name, rows in [("a.png", 1), ("b.PNG", 2), ("nested/c.png", 3)]:
        Image.fromarray(np.arange(4)[:, np.newaxis].repeat(4, 1) < rows).save(tmp_path / name)
    draw = make_sampler({"folder": 1.0}, folder=str(tmp_path))
    rows = [draw(make_rng(seed), 4, 4)[:, 0].sum() for seed in range(900)]
    np.testing.assert_allclose(np.bincount(rows, minlength=4), [0, 300, 300, 300], atol=60)


def test_sampler_skips_an_unreadable_file_and_logs_it_once(tmp_path, caplog):
    save_large_hole(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("not an image")
    draw = make_sampler({"folder": 1.0}, folder=str(tmp_path))
    assert all(draw(make_rng(seed), 8, 8).sum() == 63 for seed in range(50))
    assert caplog.text.count("bad.png cannot be read") == 1


@pytest.mark.parametrize(
    "kinds, message",
    [
        (
            {"ring": 1.0},
            "no mask kind ring; the kinds are box, strokes, box_and_strokes, irregular",
        ),
        ({"box": -1.0, "strokes": 2.0}, "must be 0 or more"),
        ({"box": 0.0}, "not all 0"),
        ({"box": math.nan}, "must be 0 or more"),
        ({}, "not all 0"),
    ],
)
def test_sampler_refuses_unknown_kinds_and_invalid_weights(kinds, message):
    with pytest.raises(UsageError, match=message):
        make_sampler(kinds)


def test_sampler_refuses_impossible_areas_and_missing_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "MAX_DRAWS", 50)
    with pytest.raises(UsageError, match=r"between 0\.65 and 0\.15"):
        make_sampler({"irregular": 1.0}, min_area=0.65, max_area=0.15)
    for folder in ("missing", ""):
        with pytest.raises(UsageError, match="holds no pictures"):
            make_sampler({"folder": 1.0}, folder=str(tmp_path / folder))


def test_sampler_does_not_use_the_current_folder_by_default(tmp_path, monkeypatch):
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="folder '' does not exist or holds no pictures"):
        make_sampler({"folder": 1.0})


def test_sampler_refuses_a_folder_of_unreadable_files(tmp_path):
    (tmp_path / "bad.png").write_text("not an image")
    with pytest.raises(UsageError, match="no usable mask"):
        make_sampler({"folder": 1.0}, folder=str(tmp_path))
