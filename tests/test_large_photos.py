"""The benchmark of large photographs, on small ones."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfill_jax.errors import UsageError

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


def test_photographs_of_a_folder_are_found_by_name(tmp_path):
    names = sorted(large_photos.PHOTOGRAPHS)
    assert len(names) == 24
    for i, name in enumerate([*names, "drawing.png"]):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / name).touch()
    found = large_photos.find_photographs(tmp_path)
    assert [file.name for file in found] == names
    assert large_photos.find_photographs(found[3]) == [found[3]]
    found[3].unlink()
    with pytest.raises(UsageError, match=f" lacks {names[3]}; unpack the packages"):
        large_photos.find_photographs(tmp_path)
