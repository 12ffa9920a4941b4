"""The command that continues the training of a bundled model."""

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import photos
import pytest
from made import make_model

from deepfill_jax import weights
from deepfill_jax.tensors import flatten

pytest.importorskip("ml_collections")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
train_bundled = importlib.import_module("train_bundled")

SMALL = [
    "--config.image_size=64",
    "--config.batch_size=2",
    "--config.num_steps=2",
    "--config.model.width=2",
    "--config.model.discriminator_width=1",
    "--config.data.crop_size=40",
    "--config.data.enlarge=False",
    "--config.loss.perceptual=0.0",
    "--config.eval.every=2",
    "--config.eval.batch_size=2",
    "--config.eval.num_examples=2",
    "--config.checkpoint_every=2",
    "--config.log_every=1",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Photographs, and the state of a tiny model."""
    monkeypatch.setattr(train_bundled.trainings, "RESULTS", tmp_path)
    for part in ("train", "val"):
        photos.write(tmp_path / "scenes" / part, count=2)
    return tmp_path


@pytest.mark.slow
def test_state_carries_networks_recipe_and_history_through_every_stage(folder):
    path = folder / "scenes.safetensors"
    weights.save(path, make_model("official"))
    for number in (1, 2):
        workdir = folder / f"run{number}"
        arguments = ["scenes", "--photos", str(folder), "--workdir", str(workdir), *SMALL]
        train_bundled.main(arguments)
        state = weights.load(path)
        assert state.discriminator is not None
        assert state.metadata["step"] == 2 * number and len(state.metadata["stages"]) == number
        assert state.metadata["stages"][-1]["recipe"]["adversarial"] > 0
        assert state.metadata["stages"][-1]["validation"]["step"] == [2]
    assert state.metadata["hours"] == pytest.approx(
        sum(x["hours"] for x in state.metadata["stages"])
    )
    # Writing the state again changes nothing: the stage of a run is replaced, not repeated.
    before = path.read_bytes()
    train_bundled.main([*arguments[:5], "--state-only"])
    assert path.read_bytes() == before


@pytest.mark.slow
def test_second_machine_starts_from_the_state_alone(folder):
    path = folder / "scenes.safetensors"
    weights.save(path, make_model("official"))
    arguments = ["scenes", "--photos", str(folder), "--workdir", str(folder / "run"), *SMALL]
    train_bundled.main(arguments)
    first = weights.load(path)
    shutil.rmtree(folder / "run")
    # At a learning rate of 0, training returns the parameters that it was given.
    frozen = [f"--config.{x}.learning_rate=0.0" for x in ("optimizer", "discriminator_optimizer")]
    train_bundled.main([*arguments, *frozen])
    second = weights.load(path)
    for name in ("generator", "discriminator"):
        a, b = (getattr(x, name) for x in (first, second))
        a, b = (x["params"] if name == "discriminator" else x for x in (a, b))
        kernels = [next(iter(x.values())) for x in (a, b)]
        for x, y in zip(*(flatten(k).values() for k in kernels), strict=True):
            np.testing.assert_array_equal(x, y)


def test_failed_training_leaves_the_state_alone(folder):
    path = folder / "scenes.safetensors"
    weights.save(path, make_model("official"))
    before = path.read_bytes()
    arguments = ["scenes", "--photos", str(folder), "--workdir", str(folder / "run")]
    with pytest.raises(SystemExit, match="exit code 2"):
        train_bundled.main([*arguments, *SMALL, "--config.image_side=64"])  # No such key.
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="needs Linux's autogroups")
def test_training_has_the_lowest_priority_among_all_sessions():
    # The process waits for its priority, and fails if it does not get it.
    code = (
        "import time, pathlib\n"
        "deadline = time.monotonic() + 20\n"
        "while not pathlib.Path('/proc/self/autogroup').read_text().endswith('nice 19\\n'):\n"
        "    assert time.monotonic() < deadline\n"
    )
    train_bundled.train([sys.executable, "-c", code], hours=None)
