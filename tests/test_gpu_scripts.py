"""Tests of the GPU scripts on the CPU with a tiny network: they run and write their results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import photos
import pytest

from deepfill_jax import weights

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu" / "run_all.sh"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("photos"), count=22)


def run_all(out, *options):
    environment = os.environ | {"PYTHON": sys.executable}
    command = [str(SCRIPT), str(out), "--tiny", *map(str, options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_speed_writes_its_results_for_both_forms_of_the_convolutions(tmp_path):
    ran = run_all(tmp_path / "out", "--steps", "speed forms")
    assert ran.returncode == 0, ran.stderr
    for step, form in (("speed", "by device"), ("forms", "cpu")):
        (speed,) = lines(tmp_path / "out" / f"{step}.jsonl")
        assert speed["case"] == "attention-32-1" and speed["images_per_second"] > 0
        assert speed["form"] == form


@pytest.mark.slow
def test_operations_write_their_results(tmp_path):
    ran = run_all(tmp_path / "out", "--steps", "operations")
    assert ran.returncode == 0, ran.stderr
    (profile,) = lines(tmp_path / "out" / "operations.jsonl")
    for by in ("by_kind", "by_part"):  # The times of the operations sum to the program's time.
        assert 0 < sum(profile[by].values()) == pytest.approx(profile["seconds"])
    kinds = {"convolution", "convolution, backward", "matrix product", "matrix product, backward"}
    assert profile["by_kind"].keys() == kinds | {"the rest", "the rest, backward"}
    parts = {"Generator/coarse", "Generator/attention_branch", "Discriminator/patch1, backward"}
    assert parts < profile["by_part"].keys()
    assert "jvp(Generator)/" in ran.stdout  # The slowest operations are listed with their source.
    assert list((tmp_path / "out.work" / "profile").rglob("*.xplane.pb"))


@pytest.mark.slow
def test_goldens_pass(tmp_path):
    ran = run_all(tmp_path / "out", "--steps", "goldens")
    assert ran.returncode == 0, ran.stderr
    assert lines(tmp_path / "out" / "goldens.jsonl")[0]["passed"]


@pytest.mark.slow
def test_training_resumes(tmp_path, folder):
    def train(minutes):
        options = ("--steps", "train", "--photos", folder, "--minutes", minutes)
        ran = run_all(tmp_path / "out", *options)
        assert ran.returncode == 0, ran.stderr
        return lines(tmp_path / "out" / "train.jsonl")

    first, second = train(0.001)  # Each phase makes at least one step.
    assert (first["side"], second["side"]) == (32, 40)
    assert 0 < first["step"] < second["step"] and first["seconds"] < second["seconds"]
    assert first["loss/generator"] > 0 and 0 < first["scored/psnr"] < 40
    assert weights.load(tmp_path / "out" / "model.safetensors").metadata["step"] == second["step"]
    assert (tmp_path / "out" / "samples.png").stat().st_size > 0
    assert train(0.001) == [first, second]
    *_, last = train((second["seconds"] + 1) / 60)  # Continues the second phase.
    assert last["step"] > second["step"] and last["seconds"] > second["seconds"]


@pytest.mark.slow
def test_failing_step_does_not_stop_the_others(tmp_path):
    ran = run_all(tmp_path / "out", "--steps", "train speed", "--photos", tmp_path / "none")
    assert ran.returncode == 1
    assert "none must hold two images" in ran.stderr and "Failed: train." in ran.stderr
    assert lines(tmp_path / "out" / "speed.jsonl")


@pytest.mark.slow
@pytest.mark.torch
def test_pytorch_peer_computes_the_same(tmp_path):
    pytest.importorskip("torch")
    ran = run_all(tmp_path / "out", "--steps", "torch_peer")
    assert ran.returncode == 0, ran.stderr
    same, *timed = lines(tmp_path / "out" / "torch_peer.jsonl")
    assert same["same"] and max(same["differences"].values()) < 1e-4
    assert {line["layout"] for line in timed} == {"nchw", "channels_last"}
    assert all(line["images_per_second"] > 0 for line in timed)
