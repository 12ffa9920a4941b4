"""The comparison with other implementations, with ourselves for one."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from deepfill_jax import weights
from deepfill_jax.errors import FailedError
from deepfill_jax.models import make_variant

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))
compare = importlib.import_module("compare")
Case = compare.Case

# Answers as a peer does; what it finds is all `VALUE`.
FAKE = """
import numpy as np
from peers import protocol

def make_call(case, path):
    image, mask = case.pictures()
    print("what a library says")
    return lambda: {"completed": np.full(image.shape, VALUE, np.float32)}

protocol.serve(make_call, {"versions": "fake 1", "threads": 1})
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    path = tmp_path / "model.safetensors"
    weights.save(path, compare.draw(make_variant("mmagic", width=2, discriminator_width=1)))
    return path


def ours(path, **more):
    return compare.Peer("ours", [sys.executable, "-m", "peers.ours"], path, **more)


def fake(value, path=Path("none")):
    return compare.Peer("fake", [sys.executable, "-c", FAKE.replace("VALUE", value)], path)


def test_both_sides_do_the_same(model):
    found = compare.compare(Case("forward", 32, 2), ours(model), ours(model), 2)
    assert found["case"] == "forward-32-2"
    assert found["difference"] <= 1e-5
    assert found["ratio"]["min"] <= found["ratio"]["median"] <= found["ratio"]["max"]
    assert found["memory_ratio"] == found["ours"]["gb"] / found["theirs"]["gb"]
    assert found["ours"]["versions"].startswith("jax ")
    json.dumps(found)
    rows = list(compare.table([found]))
    assert len({row.count("|") for row in rows}) == 1
    assert rows[-1].startswith("| forward-32-2 | ours | ")


def test_training_steps_go_on_from_each_other(model, tmp_path):
    pytest.importorskip("ml_collections")
    worker = compare.Worker(ours(model), Case("train", 32, 1), tmp_path / "results.npz")
    losses = []
    for _ in range(2):
        assert worker.call()["seconds"] > 0
        losses.append(worker.result())
    worker.close()
    # What MMagic's losses are compared with.
    assert losses[0].keys() > {"hinge/fake", "hinge/real", "loss/generator", "l1/refined/hole"}
    assert losses[0]["loss/generator"] != losses[1]["loss/generator"]


def test_sides_that_do_not_do_the_same_are_not_timed():
    case = Case("forward", 8, 1)
    assert compare.compare(case, fake("0.5"), fake("0.5005"), 1)["difference"] < 1e-3
    unnamed = fake("0.5")._replace(
        command=[sys.executable, "-c", FAKE.replace("VALUE", "0.5").replace("completed", "x")]
    )
    for other in (fake("0.502"), fake("np.nan"), unnamed):
        with pytest.raises(FailedError, match="fake and fake do not find the same in forward-8-1"):
            compare.compare(case, fake("0.5"), other, 1)


def test_a_case_too_large_for_the_peer_is_ours_alone():
    small = fake("0.5")._replace(largest=8)
    found = compare.compare(Case("forward", 16, 1), fake("0.5"), small, 1)
    assert "theirs" not in found and "ratio" not in found
    assert list(compare.table([found]))[-1].startswith("| forward-16-1 | - | ")


def test_a_peer_that_stops_is_named():
    with pytest.raises(FailedError, match="fake stopped in forward-8-1"):
        compare.compare(Case("forward", 8, 1), fake("0.5"), fake("1 / 0"), 1)


@pytest.mark.parametrize("text", ["forward-256", "backward-256-1", "forward-255-1", "train-64-0"])
def test_a_case_that_is_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no case"):
        Case.parse(text)


@pytest.mark.torch
def test_weights_for_nipponjo_come_back(tmp_path):
    pytest.importorskip("torch")
    sources = importlib.import_module("deepfill_jax.convert.sources")
    model = compare.draw(make_variant("nipponjo", width=2, discriminator_width=1))
    compare.write_nipponjo(tmp_path / "model.pth", model)
    read = weights.flatten(sources.read(tmp_path / "model.pth").model.generator)
    drawn = weights.flatten(model.generator)
    assert read.keys() == drawn.keys()
    assert all((read[name] == drawn[name]).all() for name in drawn)


def run_script(name, *arguments):
    command = [sys.executable, BENCHMARKS / name, *arguments, "--width", "2"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_each_case_of_our_own_is_timed_in_a_process():
    printed = run_script("speed.py", "--cases", "inference-32-1", "attention-32-2", "--rounds", "1")
    *lines, _, _, first, second = printed.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["case"] for one in found] == ["inference-32-1", "attention-32-2"]
    for one in found:
        assert one["seconds"]["min"] > 0 and one["gflop"] > 0 and 0.1 < one["peak_gb"] < 4
    assert "inference-32-1" in first and "attention-32-2" in second


def test_the_time_of_a_program_is_that_of_its_operations():
    printed = run_script("operations.py", "--size", "32", "--top", "3")
    kinds = [row.split(" | ") for row in printed.splitlines() if "%" in row]
    shares = {row[0].strip("| "): int(row[2].rstrip("%")) for row in kinds if row[2].endswith("%")}
    assert 97 <= sum(shares.values()) <= 103 and shares["convolution"] > 0
    assert "Generator/" in printed.splitlines()[-1]


def test_growth_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "growth.png"
    sizes = "--sizes", "32", "64", "--batches", "--devices"
    printed = run_script("growth.py", *sizes, "--rounds", "1", "--output", path)
    assert len(printed.splitlines()) == 2 and path.read_bytes().startswith(b"\x89PNG")
