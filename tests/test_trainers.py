"""Tests of the comparison of trainers, with this project as its own peer."""

import importlib
import itertools
import json
import sys
from argparse import Namespace
from pathlib import Path

import jax
import numpy as np
import photos
import pytest

from deepfill_jax import weights
from deepfill_jax.convert import layout, mmagic
from deepfill_jax.errors import RunError
from deepfill_jax.models import make_variant
from deepfill_jax.tensors import flatten

pytest.importorskip("ml_collections")
ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
histories = importlib.import_module("histories")
model_files = importlib.import_module("peers.model_files")
trainers = importlib.import_module("trainers")
protocol = importlib.import_module("peers.protocol")
worker = importlib.import_module("peers.worker")

STEPS = 3
FAKE = """
import numpy as np
from peers import protocol

def make_calls(case, path, pictures):
    def call():
        global step
        step += 1
        image, mask = next(pictures)
        return {"loss/generator": LOSS}

    return {"train": call, "weights": lambda: {"steps": step}}

step = 0
protocol.serve(make_calls, {"versions": "fake 1", "threads": 1})
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config with tiny networks and a few images."""
    folder = tmp_path_factory.mktemp("photos")
    for part in ("train", "val"):
        photos.write(folder / "faces" / part)
    case = protocol.Case("train", 32, 2)
    config = trainers.make_config(
        Namespace(photos=folder, case=case, steps=STEPS, width=2, init="unit_variance", number=4)
    )
    config.model.discriminator_width = 1
    return config


def flat(model):
    return flatten(jax.tree.map(np.asarray, weights.networks(model)))


def fake(loss):
    """A side that finds a loss of what it is given, the step counted from 1."""
    code = FAKE.replace("LOSS", loss)
    return worker.Peer("fake", [sys.executable, "-c", code], Path("none"))


def train(config, folder, *sides):
    trainers.write_batches(config, folder / "batches.npz")
    return trainers.train(protocol.Case("train", 32, 2), sides, folder / "batches.npz", STEPS)


def test_file_of_batches_equals_our_training_stream(config, tmp_path):
    trainers.write_batches(config, tmp_path / "batches.npz")
    read = list(protocol.read(tmp_path / "batches.npz"))
    stream = trainers.streams.training_batches(config)(0)
    for (image, mask), batch in zip(read, itertools.islice(stream, STEPS), strict=True):
        assert (image == batch["image"]).all() and (mask == batch["mask"]).all()
    stream.close()


def test_sides_train_on_the_same_batches(config, tmp_path):
    ours, theirs = train(config, tmp_path, fake("image.mean()"), fake("image.mean() + step - 1"))
    means = [image.mean() for image, _ in protocol.read(tmp_path / "batches.npz")]
    assert len(set(means)) == STEPS
    np.testing.assert_array_equal(ours.losses["loss/generator"], means)
    np.testing.assert_array_equal(theirs.losses["loss/generator"], means + np.arange(STEPS))
    assert ours.weights == {"steps": STEPS} and (ours.seconds > 0).all()


def test_different_or_infinite_losses_stop_the_comparison(config, tmp_path):
    with pytest.raises(RunError, match="compute different results in train-32-2"):
        train(config, tmp_path, fake("1"), fake("1.1"))
    with pytest.raises(RunError, match="A loss of fake is not finite in step 2"):
        train(config, tmp_path, fake("1"), fake("1 if step == 1 else np.nan"))


@pytest.mark.slow
def test_identical_sides_have_identical_losses(config, tmp_path):
    model = trainers.initial_model(config)
    weights.save(tmp_path / "model.safetensors", model)
    command = [sys.executable, "-m", "peers.ours"]
    sides = [worker.Peer("ours", command, tmp_path / "model.safetensors")] * 2
    ours, theirs = train(config, tmp_path, *sides)
    for name, losses in ours.losses.items():
        assert losses.shape == (STEPS,) and (losses == theirs.losses[name]).all()
    before, after = flat(model), flat(trainers.to_model(ours.weights, model.variant))
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before if name.endswith("kernel"))


def test_weights_with_mmagics_names_are_read_back():
    model = model_files.random_model(make_variant("mmagic", width=2, discriminator_width=1))
    tensors = layout.revert(model, mmagic.make_table(discriminator=True))
    before, after = flat(model), flat(trainers.to_model(tensors, model.variant))
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)


def test_summary_tables_and_plot_of_histories(tmp_path):
    pytest.importorskip("matplotlib")
    steps = np.arange(1.0, 51.0)

    def history(factor, seconds):
        losses = {name: factor * steps for name in histories.PLOTTED}
        return histories.History(losses, *np.full((2, 50), seconds), {}, "jax 1")

    runs = history(1.01, 2.0), history(1.0, 4.0), history(1.0302, 3.0)
    kept = histories.summarise(*runs)
    assert kept["seconds"]["ratio"] == {"median": 0.5, "min": 0.5, "max": 0.5}
    assert kept["seconds"]["total"] == [100, 200]
    assert kept["differences"]["hinge/real"] == {"1": 0.01, "10": 0.01}
    assert kept["steps"] == [1, 10, 20, 30, 40, 50]
    assert kept["losses"]["theirs"]["hinge/real"] == kept["steps"]
    score = {name: {"mean": 1.0, "standard_error": 0.1} for name in ("l1_hole", "psnr", "ssim")}
    rows = list(histories.tables(json.loads(json.dumps(kept)) | {"scores": {"before": score}}))
    assert "| before | 1.000 ± 0.100 | 1.000 ± 0.100 | 1.0000 ± 0.1000 |" in rows
    assert "| hinge/real | 1e-02 (2e-02) | 1e-02 (2e-02) | 25.75 | 25.5 |" in rows
    histories.plot(*runs, tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_models_and_the_mean_colour_are_evaluated(config, tmp_path):
    model = model_files.random_model(trainers.build.variant(config))
    scores = trainers.score({"before": model}, config, tmp_path)
    assert scores.keys() == {"mean", "before"}
    assert all(0 < metrics["l1_hole"]["mean"] < 100 for metrics in scores.values())
    assert "lpips" not in scores["before"]  # LPIPS needs an extra that trainers.py does not need.
    assert scores["before"] != scores["mean"]


@pytest.mark.slow
def test_config_is_trained_by_the_command_and_read(config, tmp_path):
    smoke = str(ROOT / "configs" / "smoke.py")
    changes = ["--config.num_steps=2", "--config.batch_size=8"]
    trained = trainers.train_for(600, smoke, changes, config, tmp_path / "run")
    assert trained.metadata["step"] == 2 and trained.variant.width == 2
    with pytest.raises(RunError, match="did not train for 1 s"):
        trainers.train_for(1, smoke, changes, config, tmp_path / "short")
