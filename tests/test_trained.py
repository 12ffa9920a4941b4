"""The models that come with the package, and their names."""

import json

import numpy as np
import pytest
from made import make_model

from deepfill_jax import Inpainter, trained, weights
from deepfill_jax.convert import inspect, sources
from deepfill_jax.errors import UsageError


@pytest.fixture
def dogs(tmp_path, monkeypatch):
    """A folder of models with one in it, "dogs"."""
    monkeypatch.setattr(trained, "FOLDER", tmp_path / "trained")
    model = make_model("official")
    metadata = {"image_size": 64, "license": "CC0 1.0"}
    path = tmp_path / "trained" / "dogs.safetensors"
    weights.save(path, weights.Model(model.variant, model.generator, metadata=metadata))
    return path


def test_a_name_is_taken_wherever_a_model_is(dogs, monkeypatch):
    assert trained.names() == ["dogs"]
    assert trained.find("dogs") == dogs
    assert sources.read("dogs").files == (dogs,)
    assert Inpainter.load("dogs").working_size == 64


def test_a_name_goes_before_a_folder_that_is_called_so(dogs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dogs").mkdir()
    assert weights.load("dogs").metadata["license"] == "CC0 1.0"
    with pytest.raises(UsageError, match="dogs is no known source"):
        sources.read("./dogs")


def test_an_unknown_name_is_answered_with_those_that_there_are(dogs):
    with pytest.raises(UsageError, match="no model file cats; by name there are dogs"):
        Inpainter.load("cats")


def test_inspect_lists_all(dogs, capsys):
    inspect.main([])
    assert "dogs.license" in capsys.readouterr().out
    inspect.main(["--json"])
    assert json.loads(capsys.readouterr().out) == {"dogs": inspect.inspect(dogs)}


SHIPPED = trained.names()


def test_those_that_the_readme_names_are_there():
    assert SHIPPED == ["faces", "guided", "scenes"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_small_and_says_what_it_is(name):
    path = trained.find(name)
    assert path.stat().st_size < 10_000_000
    metadata = inspect.inspect(name)
    assert metadata["dtype"] == "float16" and metadata["license"].startswith("Research use only")
    assert metadata["step"] > 0
    card = path.with_suffix(".md").read_text()
    assert metadata["files"][path.name]["sha256"][:16] in card  # It is of this file.


def slope_with_a_hole():
    ramp = np.linspace(40, 220, 128)
    mask = np.zeros((128, 128), np.uint8)
    mask[40:88, 40:88] = 255
    return np.broadcast_to(ramp[:, None, None], (128, 128, 3)).astype(np.uint8), mask


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_fills_a_slope_better_than_its_mean(name):
    image, mask = slope_with_a_hole()
    completed = Inpainter.load(name)(image, mask).astype(float)
    hole = mask > 0
    error = np.abs(completed - image)[hole].mean()
    assert error < np.abs(image[hole] - image[~hole].mean()).mean() / 2


@pytest.mark.parametrize("column", [52, 64, 76])
def test_a_line_changes_the_fill_where_it_was_drawn(column):
    image, mask = slope_with_a_hole()
    sketch = np.zeros_like(mask)
    sketch[40:88, column - 2 : column + 2] = 255
    inpainter = Inpainter.load("guided")
    without = inpainter(image, mask).astype(float)
    change = np.abs(inpainter(image, mask, sketch=sketch) - without).mean(axis=(0, 2))
    near = np.abs(np.arange(128) - column + 0.5) < 8
    known = change[np.r_[:40, 88:128]]
    assert not known.any()
    assert change[near].mean() > 3 * change[40:88][~near[40:88]].mean()
