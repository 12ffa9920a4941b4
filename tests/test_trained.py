"""The models that come with the package, and their names."""

import json

import pytest
from made import make_model

from deepfill_jax import Inpainter, inspect, weights
from deepfill_jax.convert import sources
from deepfill_jax.errors import UsageError


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A folder of models with one in it, "dogs"."""
    monkeypatch.setattr(weights, "TRAINED", tmp_path / "trained")
    model = make_model("official")
    about = {"image_size": 64, "licence": "CC0 1.0"}
    path = tmp_path / "trained" / "dogs.safetensors"
    weights.save(path, weights.Model(model.variant, model.generator, about=about))
    return path


def test_a_name_is_taken_wherever_a_model_is(trained, monkeypatch):
    assert weights.names() == ["dogs"]
    assert weights.find("dogs") == trained
    assert sources.read("dogs").files == (trained,)
    assert Inpainter.load("dogs").working_size == 64


def test_a_name_goes_before_a_folder_that_is_called_so(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dogs").mkdir()
    assert weights.load("dogs").about["licence"] == "CC0 1.0"
    with pytest.raises(UsageError, match="dogs is no known source"):
        sources.read("./dogs")


def test_an_unknown_name_is_answered_with_those_that_there_are(trained):
    with pytest.raises(UsageError, match="no model file cats; by name there are dogs"):
        Inpainter.load("cats")


def test_inspect_lists_all(trained, capsys):
    inspect.main([])
    assert "dogs.licence" in capsys.readouterr().out
    inspect.main(["--json"])
    assert json.loads(capsys.readouterr().out) == {"dogs": inspect.inspect(trained)}
