"""Tests of the scripts of examples/, run as commands on small images with a tiny model."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import photos
import pytest
from made import make_model, make_picture
from PIL import Image
from references import random_variables

from deepfill_jax import weights
from deepfill_jax.convert import sources
from deepfill_jax.models import Generator, make_variant

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "tiny.safetensors"
    weights.save(path, make_model("official"))
    return path


def run(name, *arguments):
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_have_at_most_thirty_lines(path):
    assert len(path.read_text().splitlines()) <= 30


def test_inpaint_one_fills_only_the_hole(tmp_path, model):
    picture, mask = make_picture(40, 56)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    run("inpaint_one.py", *(tmp_path / f"{n}.png" for n in ("photo", "mask", "result")), model)
    changed = (read(tmp_path / "result.png") != picture).any(axis=2)
    assert changed.any() and not changed[mask == 0].any()


def test_inpaint_folder_keeps_known_pixels(tmp_path, model):
    (tmp_path / "masks").mkdir()
    for path in photos.write(tmp_path / "photos", count=9).iterdir():  # More than one batch.
        Image.fromarray(make_picture(40, 40)[1]).save(tmp_path / "masks" / path.name)
    run("inpaint_folder.py", tmp_path / "photos", tmp_path / "masks", tmp_path / "results", model)
    results = sorted((tmp_path / "results").iterdir())
    assert len(results) == 9
    known = make_picture(40, 40)[1] == 0
    for path in results:
        assert (read(path)[known] == read(tmp_path / "photos" / path.name)[known]).all()


def test_extend_canvas_adds_pixels_on_each_side(tmp_path, model):
    picture, _ = make_picture(40, 56)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    run("extend_canvas.py", tmp_path / "photo.png", 16, tmp_path / "result.png", model)
    result = read(tmp_path / "result.png")
    assert result.shape == (72, 88, 3)
    assert (result[16:-16, 16:-16] == picture).all()


@pytest.mark.slow
def test_fine_tune_updates_all_parameters(tmp_path):
    variant = make_variant("official", width=12)
    path = tmp_path / "narrow.safetensors"
    weights.save(path, weights.Model(variant, random_variables(Generator(variant))["params"]))
    photos.write(tmp_path / "photos", size=128)
    run("fine_tune.py", tmp_path / "photos", tmp_path / "run", "--model", path, "--steps", 2)
    before, after = weights.load(path).generator, sources.read(tmp_path / "run").model.generator
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    assert min(jax.tree.leaves(moved)) > 0
