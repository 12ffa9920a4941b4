"""Tests of the blind comparison of methods."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
blind_look = importlib.import_module("blind_look")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(30):
        pixels = rng.integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


def test_counts_add_the_names_to_the_letters(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(blind_look, "RESULTS", tmp_path / "results.json")
    sheets, choices = tmp_path / "sheets", tmp_path / "choices.json"
    blind_look.main(["make", str(photos), str(sheets), "--methods", "telea,mean"])
    assert len(list(sheets.glob("*.png"))) == 6
    assert Image.open(sheets / "0.png").size == (3 * blind_look.SIDE, 4 * blind_look.SIDE)
    orders = json.loads((sheets / "orders.json").read_text())
    assert len(orders) == 24 and len({tuple(order) for order in orders}) == 2
    chosen = ["AB"] + ["AB"[order.index("telea")] for order in orders[1:]]
    choices.write_text(json.dumps(chosen))
    blind_look.main(["count", str(sheets), str(choices)])
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["chosen"][:2] == [["mean", "telea"], ["telea"]]
    assert result["counts"]["telea"] == {"first alone": 23, "first or level": 24}
    assert result["counts"]["mean"] == {"first alone": 0, "first or level": 1}
    assert json.loads(capsys.readouterr().out) == result["counts"]


@pytest.mark.parametrize("draw", [blind_look.blob, blind_look.box])
def test_holes_are_as_large_as_objects(draw):
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = draw(300, 200, rng)
        rows, columns = np.nonzero(mask)
        assert 20 <= np.ptp(rows) + 1 <= 62 and 20 <= np.ptp(columns) + 1 <= 92
        left, top, right, bottom = blind_look.around(mask)
        assert right - left == bottom - top and mask[top:bottom, left:right].sum() == mask.sum()
