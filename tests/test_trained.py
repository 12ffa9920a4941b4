"""The bundled models and their names."""

import json

import numpy as np
import pytest
from made import make_model

from deepfill_jax import Inpainter, trained, weights
from deepfill_jax.convert import inspect, sources
from deepfill_jax.errors import UsageError


@pytest.fixture
def dogs(tmp_path, monkeypatch):
    """A folder of bundled models with one model, "dogs"."""
    monkeypatch.setattr(trained, "FOLDER", tmp_path / "trained")
    model = make_model("official")
    metadata = {"image_size": 64, "license": "CC0 1.0"}
    path = tmp_path / "trained" / "dogs.safetensors"
    weights.save(path, weights.Model(model.variant, model.generator, metadata=metadata))
    return path


def test_name_of_a_bundled_model_is_accepted_everywhere(dogs, monkeypatch):
    assert trained.names() == ["dogs"]
    assert trained.find("dogs") == dogs
    assert sources.read("dogs").files == (dogs,)
    assert Inpainter.load("dogs").working_size == 64


def test_name_takes_precedence_over_a_folder_of_the_same_name(dogs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dogs").mkdir()
    assert weights.load("dogs").metadata["license"] == "CC0 1.0"
    with pytest.raises(UsageError, match="dogs is not a supported source"):
        sources.read("./dogs")


def test_unknown_name_lists_the_bundled_models(dogs):
    with pytest.raises(UsageError, match="no model file cats; models by name: dogs"):
        Inpainter.load("cats")


def test_inspect_without_arguments_describes_all_models(dogs, capsys):
    inspect.main([])
    assert "dogs.license" in capsys.readouterr().out
    inspect.main(["--json"])
    assert json.loads(capsys.readouterr().out) == {"dogs": inspect.inspect(dogs)}


SHIPPED = trained.names()


def test_models_of_the_readme_are_bundled():
    assert SHIPPED == ["scenes", "faces", "guided"]


@pytest.mark.parametrize("name", SHIPPED)
def test_bundled_model_is_small_and_has_license_step_and_model_card(name):
    path = trained.find(name)
    assert path.stat().st_size < 10_000_000
    metadata = inspect.inspect(name)
    assert metadata["dtype"] == "float16" and metadata["license"].startswith("Research use only")
    assert metadata["step"] > 0
    card = path.with_suffix(".md").read_text()
    assert metadata["files"][path.name]["sha256"][:16] in card  # The card describes this file.


def slope_with_a_hole():
    ramp = np.linspace(40, 220, 128)
    mask = np.zeros((128, 128), np.uint8)
    mask[40:88, 40:88] = 255
    return np.broadcast_to(ramp[:, None, None], (128, 128, 3)).astype(np.uint8), mask


@pytest.mark.parametrize("name", SHIPPED)
def test_bundled_model_inpaints_a_gradient_better_than_the_mean(name):
    image, mask = slope_with_a_hole()
    completed = Inpainter.load(name)(image, mask).astype(float)
    hole = mask > 0
    error = np.abs(completed - image)[hole].mean()
    assert error < np.abs(image[hole] - image[~hole].mean()).mean() / 2


@pytest.mark.parametrize("column", [52, 64, 76])
def test_sketch_line_changes_the_result_near_the_line(column):
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
