"""The benchmark of thin holes, on small photographs."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
thin_holes = importlib.import_module("thin_holes")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((600, 800, 3), 128, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("case", thin_holes.CASES, ids=lambda case: case.kind)
def test_cases_have_thin_holes(case, photo):
    rows = case.rows if case.rows.start is None else slice(100, 300)
    small = case._replace(megapixels=min(case.megapixels, 0.5), rows=rows)
    image, mask = thin_holes.make(small, [photo])
    assert mask.shape == image.shape[:2] and 0 < mask.mean() < 0.4


def test_cells_cover_the_hole_inside_the_grid():
    mask = np.zeros((300, 400), bool)
    mask[10:20, 100:200] = mask[290:] = True  # The grid does not reach the last rows.
    windows = thin_holes.cells(mask)
    assert windows == [np.s_[0:128, 128:256], np.s_[0:128, 0:128]]


def test_table_and_crops(photo, tmp_path, capsys, monkeypatch):
    def fill(value):
        return lambda image, mask, _: np.where(mask[..., None], np.uint8(value), image)

    monkeypatch.setattr(thin_holes.Inpainter, "load", lambda model: None)
    benchmark = thin_holes.large_photos
    monkeypatch.setattr(benchmark, "network", lambda inpainter, seamless=True: fill(130))
    monkeypatch.setattr(benchmark, "lpips", lambda: lambda a, b: np.abs(a - 1.0 * b).max())
    case = thin_holes.Case("3 squares", 5, 0.12, thin_holes.squares)
    monkeypatch.setattr(thin_holes, "CASES", (case, case._replace(kind="other")))
    thin_holes.main([str(photo), "--only", "squares", "--crops", str(tmp_path / "crops")])
    (_, _, line) = capsys.readouterr().out.splitlines()
    assert line.startswith("| 3 squares | 0.12 | 0.78 | 0.78 | 0.00 | 2.0000 | 2.0000 | 0.0000 | ")
    (crop,) = (tmp_path / "crops").iterdir()
    assert Image.open(crop).size == (5 * 3 * 128, 3 * 128)
