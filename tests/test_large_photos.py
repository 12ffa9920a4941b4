"""The benchmark of large photographs, on small ones."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
large_photos = importlib.import_module("large_photos")


@pytest.mark.parametrize("seed", range(3))
def test_holes_lie_in_their_box(seed):
    mask, box = large_photos.blob(np.random.default_rng(seed), (300, 400), 100)
    inside = np.zeros_like(mask)
    inside[box.slices] = True
    assert 0.4 < mask[inside].mean() < 1 and not mask[~inside].any()


def test_table_and_sheet(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(large_photos, "WIDTHS", (40, 60))
    monkeypatch.setattr(large_photos, "lpips", lambda: lambda a, b: np.abs(a - 1.0 * b).mean())

    def fill(value):
        return lambda image, mask, _: np.where(mask[..., None], np.uint8(value), image)

    monkeypatch.setattr(
        large_photos, "methods", lambda model: {"grey": fill(130), "black": fill(0)}
    )
    photo = tmp_path / "a.png"
    Image.fromarray(np.full((150, 200, 3), 128, np.uint8)).save(photo)
    large_photos.main([str(photo), "--sheet", str(tmp_path / "sheet.png")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a.png, 40 px: grey 0.78, ") and lines[1].startswith("a.png, 60 px")
    assert lines[4].startswith("| grey | 0.78 ± 0.00 | ") and "| black | 50.20 " in lines[5]
    assert Image.open(tmp_path / "sheet.png").size == (4 * 400, 2 * 400)
