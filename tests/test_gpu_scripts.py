"""The scripts for GPUs, on the CPU with a tiny network: they run, and leave what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import photos
import pytest

from deepfill_jax import weights

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu" / "run_all.sh"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("photos"), count=22)


def run_all(out, *options):
    environment = os.environ | {
        "PYTHON": sys.executable,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    command = [str(SCRIPT), str(out), "--tiny", *map(str, options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def lines(path):
    """Without the first, which names the device."""
    about, *rest = map(json.loads, path.read_text().splitlines())
    assert about["device"] == "cpu" and about["jax"] == jax.__version__
    return rest


def test_goldens_speed_and_profile(tmp_path):
    ran = run_all(tmp_path / "out", "--steps", "goldens speed profile_step")
    assert ran.returncode == 0, ran.stderr
    assert lines(tmp_path / "out" / "goldens.jsonl")[0]["passed"]
    training, inference = lines(tmp_path / "out" / "speed.jsonl")
    assert training["program"] == "training" and inference["program"] == "inference"
    for line in (training, inference):
        assert line["precision"] == "bfloat16" and line["side"] == 32
        low, high = line["spread_s"]
        assert 0 < low <= line["median_s"] <= high
        assert line["compile_s"] > 0 and line["program_gb"] > 0 and line["tflop"] > 0
    by_kind, by_part = lines(tmp_path / "out" / "profile.jsonl")
    assert by_kind["total_ms"] == by_part["total_ms"] > 0
    assert any("conv" in name for name in by_kind["ms"])
    assert {"Generator/coarse", "Discriminator/patch1"} < by_part["ms"].keys()
    assert list((tmp_path / "out.work" / "profile_step").rglob("*.xplane.pb"))


def test_training_goes_on_where_it_stopped(tmp_path, folder):
    def train(minutes):
        options = ("--steps", "train", "--photos", folder, "--minutes", minutes)
        ran = run_all(tmp_path / "out", *options)
        assert ran.returncode == 0, ran.stderr
        curve = tmp_path / "out" / "train.jsonl"
        return [x for x in map(json.loads, curve.read_text().splitlines()) if "step" in x]

    first, second = train(0.001)  # Of each phase at least a step.
    assert (first["side"], second["side"]) == (32, 40)
    assert 0 < first["step"] < second["step"] and first["seconds"] < second["seconds"]
    assert first["loss/generator"] > 0 and 0 < first["scored/psnr"] < 40
    assert weights.load(tmp_path / "out" / "model.safetensors").about["step"] == second["step"]
    assert (tmp_path / "out" / "samples.png").stat().st_size > 0
    assert train(0.001) == [first, second]
    *_, last = train((second["seconds"] + 1) / 60)  # Of the second phase.
    assert last["step"] > second["step"] and last["seconds"] > second["seconds"]


def test_a_step_that_fails_stops_no_other(tmp_path):
    ran = run_all(tmp_path / "out", "--steps", "train speed", "--photos", tmp_path / "none")
    assert ran.returncode == 1
    assert "none must hold two pictures" in ran.stderr and "Failed: train." in ran.stderr
    assert [one["program"] for one in lines(tmp_path / "out" / "speed.jsonl")]


@pytest.mark.torch
def test_the_peer_in_pytorch_computes_the_same(tmp_path):
    pytest.importorskip("torch")
    ran = run_all(tmp_path / "out", "--steps", "torch_peer")
    assert ran.returncode == 0, ran.stderr
    same, *timed = lines(tmp_path / "out" / "torch.jsonl")
    assert same["same"] and max(same["differences"].values()) < 1e-4
    assert {line["layout"] for line in timed} == {"nchw", "channels_last"}
    assert all(line["images_per_s"] > 0 for line in timed)
