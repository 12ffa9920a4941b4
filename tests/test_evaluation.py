"""`evaluate`: scores of each kind of method, and error messages."""

import json

import jax
import numpy as np
import photos
import pytest
from made import make_model
from PIL import Image

from deepfill_jax import Inpainter, config, sharding, weights
from deepfill_jax.data import streams
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import Report, captions, evaluate, methods, metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    weights.save(path, make_model("official"))
    return path


def make_config(folder, **changes):
    values = config.load("smoke:official")
    values.eval.batch_size = 8  # Tests run on eight virtual devices.
    values.data.val_source = f"folder:{folder}"
    values.update_from_flattened_dict(changes)
    return values


def test_baseline_by_name_is_scored_on_the_validation_images(folder, tmp_path):
    values = make_config(folder)
    report = evaluate(values, "mean", output=tmp_path / "out")
    assert isinstance(report, Report) and report.index.tolist() == [0, 1, 3, 5, 6, 8]
    (batch,) = streams.validation_batches(values)()
    completed = methods.load_baseline("mean").complete(batch)["completed"]
    expected = metrics.measure(completed, batch["image"], batch["mask"])
    np.testing.assert_allclose(report.values["l1_hole"], expected["l1_hole"][:6], rtol=1e-5)
    written = json.loads((tmp_path / "out/report.json").read_text())
    assert written["pictures"]["index"] == report.index.tolist()
    # A folder of predictions is a method too.
    again = evaluate(values, tmp_path / "out/completed")
    np.testing.assert_allclose(again.values["l1_hole"], report.values["l1_hole"], atol=0.2)


def test_model_file_and_loaded_method_have_the_same_scores(folder, model):
    values = make_config(folder)
    report = evaluate(values, model)
    loaded = methods.load(str(model), sharding.make_mesh())
    assert loaded.name == "tiny" and loaded.model.variant.name == "official"
    source = streams.open_source(values, validation=True)
    again = evaluate(values, loaded, source=source)
    assert again.values.keys() == report.values.keys()
    for name, row in report.values.items():
        np.testing.assert_array_equal(again.values[name], row)


def test_seamless_evaluation_scores_what_the_inpainter_returns(folder, model, tmp_path):
    values = make_config(folder, **{"eval.seamless": True})
    seamless = evaluate(values, model, output=tmp_path)
    (batch,) = streams.validation_batches(values)()
    expected = Inpainter.load(model)(
        batch["image"][:6], batch["mask"][:6] * np.uint8(255), strategy="original"
    )
    for index, pixels in zip(batch["index"][:6], expected, strict=True):
        written = np.asarray(Image.open(tmp_path / f"completed/{index:06d}.png"))
        np.testing.assert_allclose(written, pixels.astype(int), atol=1)
    plain = evaluate(make_config(folder), model)
    assert (plain.values["l1_hole"] != seamless.values["l1_hole"]).all()
    described = captions.conditions(values, weights.load(model))
    assert described["Colors"] == "matched at the border of the hole"
    assert "Colors" not in captions.conditions(make_config(folder), weights.load(model))


@pytest.mark.parametrize(
    "suffix, step, expected",
    [("", None, None), ("", 7, 7), ("", "best", "best"), ("@7", None, 7), ("@best", None, "best")],
)
def test_run_is_read_at_the_given_step(suffix, step, expected, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    calls = []

    def read(workdir, *, step):
        calls.append((workdir, step))
        tiny = make_model("official")
        return weights.Model(tiny.variant, tiny.generator, metadata={"step": 7})

    monkeypatch.setattr(methods.run, "read", read)
    mesh = sharding.make_mesh(jax.devices()[:1])
    assert methods.load(f"{tmp_path}{suffix}", mesh, step=step).name == "step_7"
    assert calls == [(tmp_path, expected)]


def test_unknown_method_lists_the_methods(folder, model, tmp_path):
    values = make_config(folder)
    with pytest.raises(UsageError, match="no method tela.*biharmonic, mean, .*faces, guided"):
        evaluate(values, "tela")
    with pytest.raises(
        UsageError, match="tiny.safetensors is not the folder of a run, so it has no step 3"
    ):
        evaluate(values, model, step=3)
    with pytest.raises(UsageError, match="000000.png is missing"):
        evaluate(values, tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": 30}, "config.image_size=30 must be a multiple of 8; try 24"),
        ({"eval.batch_size": 3}, r"config\.eval\.batch_size=3"),
        ({"eval.seed": -1}, "seed=-1 must be 0 or more"),
        ({"data.val_source": "folder:/no/such"}, "/no/such"),
    ],
)
def test_wrong_values_are_named(folder, changes, message):
    with pytest.raises(UsageError, match=message):
        evaluate(make_config(folder, **changes), "mean")


def test_incomplete_config_is_refused(folder):
    values = make_config(folder).to_dict()
    del values["image_size"]
    with pytest.raises(UsageError, match="config.image_size is missing"):
        evaluate(values, "mean")
