"""Tests of the evaluation tables of models and classical baselines, on small data sets."""

import importlib
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import photos
import pytest
from made import make_model
from PIL import Image

from deepfill_jax import trained, weights

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
quality = importlib.import_module("quality")


def colours():
    """Replaces the perceptual distances by distances of mean colours."""

    def measure(completed, image):
        features = jnp.stack([completed.mean((1, 2)), image.mean((1, 2))], axis=1)
        lpips = jnp.abs(features[:, 0] - features[:, 1]).mean(-1)
        return {"lpips": lpips, "lpips_vgg16": 2 * lpips, "features": features}

    return measure


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with photographs, masks and a model with a name, and no stored results."""
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "kept")
    monkeypatch.setattr(quality, "SIZE", 64)
    monkeypatch.setattr(quality.distances, "load", colours)
    monkeypatch.setattr(trained, "FOLDER", tmp_path)
    photos.write(tmp_path / "faces" / "val", count=3)
    (tmp_path / "masks").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 8:40] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "0.png")
    weights.save(tmp_path / "tiny.safetensors", make_model("official"))
    return tmp_path


def run(folder, masks, *methods, more=()):
    arguments = ["--photos", str(folder), "--sets", "faces", "--masks", masks]
    quality.main([*arguments, "--methods", ",".join(methods), *more])
    return {path.stem: json.loads(path.read_text()) for path in quality.RESULTS.glob("*.json")}


def rows(text, title):
    """Returns the cells of the table after a text, by row name."""
    lines = text.split(title, maxsplit=1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    cells = [line.strip("| ").split(" | ") for line in lines[start + 1 : lines.index("", start)]]
    return {name: figures for name, *figures in cells}


def test_table_has_a_row_per_method_and_marks_the_best(folder, capsys):
    page = folder / "scores.md"
    kept = run(folder, "irregular,files", "mean", "telea", "tiny", more=["--tables", str(page)])
    assert len(kept) == 6
    # The single mask file covers a quarter of the image, before it is resized.
    areas = kept["faces-files-mean"]["by_area"]
    assert [(row["area"], row["count"]) for row in areas] == [("20-30", 3)]
    printed = capsys.readouterr().out
    section = page.read_text().split("## faces, files masks")[1]
    assert section.strip() in printed
    assert "--sets faces --masks files --methods mean,telea,tiny\n" in section
    table = rows(section, "| Hole L1, % ")
    summaries = {name: kept[f"faces-files-{name}"]["summary"] for name in table}
    l1 = {name: summary["l1_hole"] for name, summary in summaries.items()}
    assert list(table) == sorted(l1, key=lambda name: l1[name]["mean"])
    best = next(iter(table))
    for name, (count, shown, *_, lpips, vgg16, frechet) in table.items():
        mean, error = (f"{l1[name][key]:.2f}" for key in ("mean", "standard_error"))
        assert count == "3" and shown == (
            f"**{mean}** ± {error}" if name == best else f"{mean} ± {error}"
        )
        assert f"{summaries[name]['lpips']['mean']:.3f}" in lpips and "±" in lpips
        assert f"{summaries[name]['lpips_vgg16']['mean']:.3f}" in vgg16
        assert f"{summaries[name]['frechet']['mean']:.3f}" in frechet and "±" not in frechet
    assert "| LPIPS, VGG16 | 20-30 (3) |" in section


def test_only_changed_cases_are_evaluated_again(folder, capsys):
    before = run(folder, "box", "mean", "tiny")
    assert capsys.readouterr().out.count("faces, box, ") == 2
    assert run(folder, "box", "mean", "tiny") == before
    assert "faces, box, " not in capsys.readouterr().out
    weights.save(folder / "tiny.safetensors", make_model("mmagic"))
    changed = run(folder, "box", "mean", "tiny")
    assert capsys.readouterr().out.count("faces, box, ") == 1
    assert changed["faces-box-tiny"] != before["faces-box-tiny"]
    assert changed["faces-box-mean"] == before["faces-box-mean"]
    # Results that were stored before the perceptual metrics existed lack them.
    del changed["faces-box-mean"]["summary"]["frechet"]
    path = quality.RESULTS / "faces-box-mean.json"
    path.write_text(json.dumps(changed["faces-box-mean"]))
    assert "| mean | 3 |" in "\n".join(quality.tables(quality.kept()))
    assert run(folder, "box", "mean")["faces-box-mean"] == before["faces-box-mean"]


def test_results_of_model_files_are_printed_but_not_stored(folder, capsys):
    whole = folder / "float32.safetensors"
    half = folder / "float16.safetensors"
    for path, dtype in ((whole, np.float32), (half, np.float16)):
        weights.save(path, make_model("official"), dtype=dtype)
    page = folder / "scores.md"
    files = [str(whole), str(half)]
    assert run(folder, "box", *files, more=["--tables", str(page)]) == {}
    table = rows(capsys.readouterr().out, "## faces, box masks")
    assert sorted(table) == sorted(files)
    assert "faces" not in page.read_text().split("with the number of images.")[1]


def test_methods_with_fewer_images_are_labelled_and_not_marked_best(folder, capsys):
    run(folder, "box", "telea", more=["--number", "2"])
    run(folder, "box", "mean")
    text = "\n".join(quality.tables(quality.kept()))
    assert "--methods mean\n" in text and "--methods telea --number 2\n" in text
    table = rows(text, "| Hole L1, %")
    assert table["telea"][0] == "2" and table["mean"][0] == "3"
    assert "**" in table["mean"][1] and "**" not in table["telea"][1]
