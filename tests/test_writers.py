"""Hyperparameters in TensorBoard, and Weights & Biases by a stand-in for the package."""

import sys
import types

import numpy as np
import pytest
from clu import metric_writers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from test_step_options import make_config

from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import event_files
from deepfill_jax.train import loop, writers


class FakeWandb(types.ModuleType):
    """Records what training gives to wandb."""

    def __init__(self):
        super().__init__("wandb")
        self.started, self.logged, self.finished, self.hparams = [], {}, 0, {}
        self.config = self  # `run.config.update`.

    def init(self, **options):
        self.started.append(options)
        return self

    def log(self, values, step):
        self.logged.setdefault(step, {}).update(values)

    def update(self, values, allow_val_change):
        assert allow_val_change
        self.hparams = values

    def Image(self, array):  # noqa: N802, wandb's name.
        return array.shape

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_config_is_written_as_hyperparameters(tmp_path):
    writer = writers.create(make_config(), tmp_path)
    writer.write_scalars(1, {"train/loss": 2.0})
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["optimizer.learning_rate"].number_value == pytest.approx(1e-4)
    assert hparams["model.architecture"].string_value == "official"
    assert event_files.read(tmp_path).keys() == {"train/loss"}


def test_curves_images_and_config_go_to_one_run_of_a_folder(tmp_path, wandb):
    workdir = tmp_path / "faces"
    workdir.mkdir()
    for step in (1, 2):  # The run is resumed.
        writer = writers.create(make_config(wandb="inpainting"), workdir)
        writer.write_scalars(step, {"train/loss": np.float32(step)})
        writer.write_images(step, {"eval/samples": np.zeros((1, 4, 6, 3), np.uint8)})
        writer.write_texts(step, {"note": "a"})
        writer.flush()
        writer.close()
    first, second = wandb.started
    assert first == second and wandb.finished == 2
    assert (first["project"], first["name"], first["resume"]) == ("inpainting", "faces", "allow")
    assert first["id"] and first["dir"] == str(workdir)
    samples = {"eval/samples": [(4, 6, 3)], "note": "a"}
    assert wandb.logged == {step: {"train/loss": float(step), **samples} for step in (1, 2)}
    assert wandb.hparams["optimizer.beta1"] == 0.5
    assert event_files.read(workdir).keys() == {"train/loss"}  # TensorBoard is written too.


def test_writer_has_every_method_of_the_interface(tmp_path, wandb):
    writer = writers.WandbWriter("p", tmp_path)
    assert isinstance(writer, metric_writers.MetricWriter)


def test_missing_or_refusing_wandb_is_an_error_before_training(tmp_path, monkeypatch, wandb):
    def refuse(**options):
        raise RuntimeError("api_key not configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UsageError, match="cannot start the run: api_key .*WANDB_MODE=offline"):
        writers.create(make_config(wandb="p"), tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = make_config(wandb="p", batch_size=8)
    config.eval.batch_size = 8
    with pytest.raises(UsageError, match="config.wandb='p' needs wandb: pip install"):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
