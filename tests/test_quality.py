"""The tables of models and classical fills, on small sets."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import photos
import pytest
from made import make_model
from PIL import Image

from deepfill_jax import weights

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
quality = importlib.import_module("quality")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Photographs, masks, a model, and nothing kept yet."""
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "kept")
    monkeypatch.setattr(quality, "SIZE", 64)
    photos.write(tmp_path / "faces" / "val", count=3)
    (tmp_path / "masks").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 8:40] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "0.png")
    weights.save(tmp_path / "tiny.safetensors", make_model("official"))
    return tmp_path


def run(folder, masks, *methods):
    arguments = ["--photos", str(folder), "--sets", "faces", "--masks", masks]
    quality.main([*arguments, "--methods", ",".join(methods)])
    return {path.stem: json.loads(path.read_text()) for path in quality.RESULTS.iterdir()}


def test_a_table_has_a_row_for_each_method_and_marks_the_best(folder, capsys):
    model = str(folder / "tiny.safetensors")
    kept = run(folder, "irregular,files", "mean", "telea", model)
    assert len(kept) == 6
    # The one mask file is a quarter of the picture; its edge is resized.
    areas = kept["faces-files-mean"]["by_area"]
    assert [(row["area"], row["count"]) for row in areas] == [("20-30", 3)]
    table = capsys.readouterr().out.split("### faces, files masks, 3 pictures\n\n")[1]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    best = min(("mean", "telea", "tiny"), key=lambda m: l1_hole(kept, m))
    assert rows[2].startswith(f"| {best} | **{l1_hole(kept, best):.2f}** ± ")


def l1_hole(kept, method):
    return kept[f"faces-files-{method}"]["summary"]["l1_hole"]["mean"]


def test_only_what_changed_is_scored_again(folder, capsys):
    model = folder / "tiny.safetensors"
    before = run(folder, "box", "mean", str(model))
    scored = capsys.readouterr().out.count("faces-box-")
    again = run(folder, "box", "mean", str(model))
    assert scored == 2 and capsys.readouterr().out.count("faces-box-") == 0
    assert again == before
    other = make_model("mmagic")
    weights.save(model, other)
    changed = run(folder, "box", "mean", str(model))
    assert capsys.readouterr().out.count("faces-box-") == 1
    assert changed["faces-box-tiny"] != before["faces-box-tiny"]
    assert changed["faces-box-mean"] == before["faces-box-mean"]
