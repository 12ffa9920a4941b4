"""Tests of the records of a model's training."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from deepfill_jax.evaluate.svg_charts import Curve

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
trainings = importlib.import_module("trainings")


def test_stages_are_recorded_without_machine_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "RESULTS", tmp_path / "results")
    curves = {
        "speed/steps_per_second": Curve(np.array([100, 200]), np.array([1.0, 0.5])),
        "eval/l1_hole": Curve(np.array([200]), np.array([8.25])),
    }
    monkeypatch.setattr(trainings.event_files, "read", lambda run: curves)
    run = tmp_path / "run"
    run.mkdir()
    data = {"source": f"folder:{tmp_path}/faces/train", "edges": ""}
    config = {"image_size": 64, "batch_size": 16, "init_from": str(run), "data": data}
    (run / "config.json").write_text(json.dumps(config))
    trainings.main(["faces", str(run), str(run)])
    text = (tmp_path / "results/faces.json").read_text()
    assert str(tmp_path) not in text
    first, second = json.loads(text)
    assert first == second
    assert first["config"]["data"]["source"] == "folder:faces/train"
    assert (first["steps"], first["hours"]) == (200, 300 / 3600)
    hours = round(300 / 3600, 4)
    assert first["validation"] == {"step": [200], "hours": [hours], "l1_hole": [8.25]}
    assert (tmp_path / "results/faces.png").stat().st_size > 1000
    trainings.main(["faces", str(run), "--append"])
    assert json.loads((tmp_path / "results/faces.json").read_text()) == 3 * [first]
