"""`deepfill evaluate`: the config of a run, the written files, and the printed output."""

import json
import sys

import numpy as np
import photos
import pytest
from data_streams import WHOLE, make_stream, write_pictures
from ml_collections import ConfigDict
from test_evaluation import make_config

from deepfill_jax import flags, sharding
from deepfill_jax.data import pipeline
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import captions, command, methods


@pytest.fixture
def workdir(tmp_path):
    """The folder of a run with a config of its own, by an earlier version."""
    values = make_config("/data/val", **{"image_size": 48, "optimizer.beta1": 0.25}).to_dict()
    del values["eval"]["seamless"], values["best_metric"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(ConfigDict(values).to_json())
    return tmp_path / "run"


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("name, mode", [("evaluate", []), ("main", ["--mode=eval"])])
def test_evaluation_of_a_run_takes_its_config(workdir, name, mode, separate):
    named = ["--workdir", str(workdir)] if separate else [f"--workdir={workdir}"]
    values = flags.parse(name, [*mode, *named])
    assert values.image_size == 48 and values.optimizer.beta1 == 0.25
    assert values.data.val_source == "folder:/data/val"
    # Keys that the run's version lacked.
    assert values.eval.seamless is False and values.best_metric == "l1_hole"


def test_values_of_a_run_can_be_changed(workdir, monkeypatch):
    arguments = [f"--workdir={workdir}", "--config.eval.num_examples=3"]
    monkeypatch.setattr(
        sys, "argv", ["deepfill", *arguments]
    )  # The library looks for changes here.
    values = flags.parse("evaluate", arguments)
    assert values.image_size == 48 and values.eval.num_examples == 3


def test_named_config_has_priority(workdir):
    values = flags.parse("evaluate", [f"--workdir={workdir}", "--config=smoke"])
    assert values.image_size != 48


@pytest.mark.parametrize(
    "content, message", [(None, "is not the folder of a run"), ("{", "config.json is damaged")]
)
def test_folder_without_a_config_is_refused(workdir, content, message):
    (workdir / "config.json").unlink()
    if content:
        (workdir / "config.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        flags.parse("evaluate", [f"--workdir={workdir}"])


@pytest.mark.parametrize("workdir", [None, "run"])
def test_images_are_written_only_if_asked_for(tmp_path, capsys, workdir):
    values = make_config(photos.write(tmp_path / "photos", count=3))
    method = methods.load_baseline("mean")
    scores = workdir and tmp_path / workdir / "eval"
    folders = command.output_folders("mean", (), output=None, report=None)
    command.score(values, method, folders, scores)
    printed = capsys.readouterr().out
    assert f"mean on {values.data.val_source}, holes: box_and_strokes\n" in printed
    assert "l1_hole" in printed
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "photos" not in path.parts]
    assert [path.name for path in files] == ["report.json"] * bool(workdir)
    if workdir:
        written = json.loads((scores / "mean/report.json").read_text())
        assert written["pictures"]["index"] == [0, 1, 2]


def test_report_and_output_name_the_folders(tmp_path):
    folders = command.output_folders("a", ["b"], output=None, report="page")
    assert {name: str(folder) for name, folder in folders.items()} == {"a": "page/a", "b": "page/b"}
    folders = command.output_folders("a", ["b"], output="out", report="page")
    assert {name: str(folder) for name, folder in folders.items()} == {"a": "out", "b": "page/b"}


def test_holes_are_described():
    values = make_config("photos")
    values.masks.weights.update({"box_and_strokes": 1.0, "irregular": 3.0})
    values.masks.update({"min_area": 0.15, "max_area": 0.65})
    expected = "25% box_and_strokes and 75% irregular, 15% to 65% of the image"
    assert captions.holes(values) == expected


def test_progress_is_logged(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(pipeline, "PROGRESS_SECONDS", -1.0)
    source = write_pictures(tmp_path, 6)
    for index, lines in ((0, 3), (1, 0)):
        stream = make_stream(
            source, WHOLE, seed=0, batch_size=2, process_index=index, process_count=2
        )
        caplog.clear()
        batches = list(pipeline.evaluation_batches(stream))
        assert np.sum([batch["valid"].sum() for batch in batches]) == 3
        assert caplog.text.count("of 6 images are evaluated") == lines


def test_workdir_with_the_name_of_a_bundled_model_is_a_folder():
    with pytest.raises(UsageError, match="^scenes is not the folder of a run"):
        command.choose_method(sharding.make_mesh(), workdir="scenes")
