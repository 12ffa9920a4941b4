"""Tests of the benchmark scripts; the comparison runs with this project as its own peer."""

import argparse
import dataclasses
import functools
import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from references import random_variables
from test_steps import OneLayer

from deepfill_jax import weights
from deepfill_jax.errors import RunError
from deepfill_jax.models import make_variant
from deepfill_jax.tensors import flatten

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))
compare = importlib.import_module("compare")
model_files = importlib.import_module("peers.model_files")
worker = importlib.import_module("peers.worker")
Case = compare.Case

# A peer process whose results all have the value VALUE.
FAKE = """
import numpy as np
from peers import protocol

def make_calls(case, path, pictures):
    image, mask = next(pictures)
    print("output of a library")
    return {"forward": lambda: {"completed": np.full(image.shape, VALUE, np.float32)}}

protocol.serve(make_calls, {"versions": "fake 1", "threads": 1})
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    variant = make_variant("mmagic", width=2, discriminator_width=1)
    weights.save(path, model_files.random_model(variant))
    return path


def ours(path, **more):
    return worker.Peer("ours", [sys.executable, "-m", "peers.ours"], path, **more)


def fake(value, path=Path("none")):
    return worker.Peer("fake", [sys.executable, "-c", FAKE.replace("VALUE", value)], path)


def test_comparison_with_itself_finds_no_difference(model):
    result = compare.compare(Case("forward", 32, 2), ours(model), ours(model), 2)
    assert result["case"] == "forward-32-2"
    assert result["difference"] <= 1e-5
    assert result["ratio"]["min"] <= result["ratio"]["median"] <= result["ratio"]["max"]
    assert result["memory_ratio"] == result["ours"]["gb"] / result["theirs"]["gb"]
    assert result["ours"]["compiling_gb"] > result["ours"]["gb"]
    assert result["ours"]["versions"].startswith("jax ")
    json.dumps(result)
    rows = list(compare.table([result]))
    assert len({row.count("|") for row in rows}) == 1
    assert rows[-1].startswith("| forward-32-2 | ours | ")


def test_peer_continues_training_from_step_to_step(model, monkeypatch):
    pytest.importorskip("ml_collections")
    peer, case = importlib.import_module("peers.ours"), Case("train", 32, 1)
    monkeypatch.setattr(peer, "Generator", OneLayer)
    given = dataclasses.replace(
        weights.load(model),
        generator=random_variables(OneLayer(weights.load(model).variant))["params"],
    )
    monkeypatch.setattr(peer.weights, "load", lambda path: given)
    calls = peer.make_calls(case, model, itertools.repeat(case.pictures()))
    losses = [calls["train"]() for _ in range(2)]
    trained = calls["weights"]()
    # MMagic's losses are compared by these names.
    assert losses[0].keys() > {"hinge/fake", "hinge/real", "loss/generator", "l1/refined/hole"}
    assert losses[0]["loss/generator"] != losses[1]["loss/generator"]
    before = flatten(weights.networks(given))
    assert before.keys() == trained.keys()
    name = "discriminator/params/patch1/kernel"
    assert before[name].shape == trained[name].shape and (before[name] != trained[name]).any()


def test_different_results_are_refused():
    case = Case("forward", 8, 1)
    assert compare.compare(case, fake("0.5"), fake("0.5005"), 1)["difference"] < 1e-3
    unnamed = fake("0.5")._replace(
        command=[sys.executable, "-c", FAKE.replace("VALUE", "0.5").replace("completed", "x")]
    )
    for other in (fake("0.502"), fake("np.nan"), unnamed):
        with pytest.raises(
            RunError, match="fake and fake compute different results in forward-8-1"
        ):
            compare.compare(case, fake("0.5"), other, 1)


def test_case_too_large_for_the_peer_is_measured_without_it():
    small = fake("0.5")._replace(largest=8)
    result = compare.compare(Case("forward", 16, 1), fake("0.5"), small, 1)
    assert "theirs" not in result and "ratio" not in result
    assert list(compare.table([result]))[-1].startswith("| forward-16-1 | - | ")


def test_failing_peer_is_named():
    with pytest.raises(RunError, match="fake failed in forward-8-1"):
        compare.compare(Case("forward", 8, 1), fake("0.5"), fake("1 / 0"), 1)


@pytest.mark.parametrize("text", ["forward-256", "backward-256-1", "forward-255-1", "train-64-0"])
def test_invalid_case_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a case"):
        Case.parse(text)


@pytest.mark.torch
def test_onnx_runtime_computes_the_same(tmp_path):
    options = argparse.Namespace(width=6)
    sides = compare.make_sides("onnxruntime", tmp_path, options)
    result = compare.compare(Case("forward", 72, 1), *sides, 1)
    assert result["peer"] == "onnxruntime" and result["difference"] < 1e-3


def test_weights_written_for_nipponjo_are_read_back(tmp_path):
    pytest.importorskip("torch")
    sources = importlib.import_module("deepfill_jax.convert.sources")
    model = model_files.random_model(make_variant("nipponjo", width=2, discriminator_width=1))
    model_files.write_nipponjo(tmp_path / "model.pth", model)
    read = flatten(sources.read(tmp_path / "model.pth").model.generator)
    written = flatten(model.generator)
    assert read.keys() == written.keys()
    assert all((read[name] == written[name]).all() for name in written)


def run_script(name, *arguments, fails=False):
    command = [sys.executable, BENCHMARKS / name, *arguments, "--width", "2"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == fails, ran.stderr
    return ran.stdout


def test_speed_measures_each_case_in_a_separate_process(tmp_path):
    path = tmp_path / "speed.jsonl"
    cases = "--cases", "inference-32-1", "attention-32-2"
    printed = run_script("speed.py", *cases, "--rounds", "1", "--output", path)
    *lines, _, _, first, second = printed.splitlines()
    assert path.read_text().splitlines() == lines
    results = [json.loads(line) for line in lines]
    assert [result["case"] for result in results] == ["inference-32-1", "attention-32-2"]
    for result in results:
        assert result["seconds"]["min"] > 0 and result["gflop"] > 0 and 0.1 < result["peak_gb"] < 4
        assert 0 < result["program_gb"] < result["peak_gb"] and result["device"] == "cpu"
    assert "inference-32-1" in first and "attention-32-2" in second


def test_failing_case_does_not_stop_the_others():
    cases = "--cases", "attention-33554432-1", "attention-32-1", "--precisions", "bfloat16"
    printed = run_script("speed.py", *cases, "--rounds", "1", fails=True)
    failed, done, *_, row = printed.splitlines()
    assert "Unable to allocate" in json.loads(failed)["error"]  # It needs three million GB.
    assert json.loads(done)["precision"] == "bfloat16" and "attention-32-1" in row


@pytest.mark.slow
def test_drift_from_plain_convolutions_is_rounding():
    fast, nudged = map(json.loads, run_script("drift.py", "--steps", "2").splitlines())
    assert (fast["run"], nudged["run"]) == ("fast", "nudged")
    assert 0 < max(fast["differences"].values()) < 1e-4


# XLA's text for a GPU: a cuDNN call by name, and a matrix product in a Triton fusion.
GPU_PROGRAM = """
%gemm_fusion_dot.3_computation (parameter_0: f32[8,4]) -> f32[8,8] {
  %parameter_0 = f32[8,4]{1,0} parameter(0)
  ROOT %dot.3 = f32[8,8]{1,0} dot(%parameter_0, %parameter_0), lhs_contracting_dims={1}
}

ENTRY %main.9 (x: f32[8,4]) -> f32[8,8] {
  %x = f32[8,4]{1,0} parameter(0)
  %conv.1 = (f32[3,3,4,8]{3,2,1,0}, u8[0]{0}) custom-call(%x, %x), custom_call_target=\
"__cudnn$convBackwardFilter", metadata={op_name="transpose(jvp(Discriminator))/patch1/conv"}
  ROOT %gemm_fusion_dot.3 = f32[8,8]{1,0} fusion(%x), kind=kCustom, \
calls=%gemm_fusion_dot.3_computation, metadata={op_name="Generator/refine/attention_branch/dot"}
}
"""


def test_gpu_operations_are_read_from_stream_events():
    operations = importlib.import_module("operations")
    known = operations.instructions(GPU_PROGRAM)
    assert known["conv.1"].kind == "convolution, backward"
    assert known["conv.1"].part == "Discriminator/patch1, backward"
    assert known["gemm_fusion_dot.3"].kind == "matrix product"
    assert known["gemm_fusion_dot.3"].flops == 2 * 8 * 8 * 4

    def line(name, *events):
        return SimpleNamespace(name=name, events=events)

    def event(start, end, name, **stats):
        return SimpleNamespace(start_ns=start, end_ns=end, name=name, stats=stats)

    kernel, copy = event(1, 5, "a kernel", hlo_op="conv.1"), event(5, 6, "MemcpyD2D")
    lines = [line("Stream #1(Compute)", kernel, copy), line("XLA Ops", event(1, 5, "conv.1"))]
    planes = [SimpleNamespace(name="/host:CPU", lines=[line("python", event(0, 9, "f"))])]
    planes += [SimpleNamespace(name="/device:GPU:0", lines=lines)]
    assert list(operations.spans(planes)) == [(1, 5, "conv.1"), (5, 6, "MemcpyD2D")]


def test_growth_writes_a_plot(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    growth, path, cases = importlib.import_module("growth"), tmp_path / "growth.png", []
    small = argparse.Namespace(rounds=1, architecture="official", width=2)
    measured = functools.cache(functools.partial(growth.measure, "attention-32-1", small))

    def measure(case, options, devices=1):
        """Measures a case that compiles in a moment instead of the given one."""
        cases.append((case, devices))
        return measured()

    monkeypatch.setattr(growth, "measure", measure)
    sizes = ["--sizes", "32", "64", "--batches", "--devices", "1", "2"]
    monkeypatch.setattr(sys, "argv", ["growth.py", *sizes, "--output", str(path)])
    growth.main()
    assert cases == [
        *(("inference-32-1", 1), ("inference-64-1", 1)),
        *(("training-64-8", 1), ("training-64-8", 2)),
    ]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_collectives_are_read_from_the_compiled_program():
    processes = importlib.import_module("processes")
    text = """
  %a = (f32[250000]{0}, f32[]{}) all-reduce(%x, %y), channel_id=1
  %b = bf16[2,250000]{1,0} all-gather(%z), dimensions={0}
  %c = f32[8]{0} add(%all-reduce, %y)
"""
    assert processes.exchanges(text) == ["all-reduce 1 MB", "all-gather 1 MB"]


@pytest.mark.slow
def test_processes_measures_all_divisions():
    script = BENCHMARKS / "processes.py"
    command = [sys.executable, script, "--case", "training-64-2", "--width", "2", "--rounds", "1"]
    environment = {n: x for n, x in os.environ.items() if n != "XLA_FLAGS"}
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert [line["division"] for line in lines] == ["1x1", "1x2", "2x1"]
    assert not lines[0]["exchanges"] and lines[1]["exchanges"] == lines[2]["exchanges"]
    assert lines[0]["ratio"]["median"] == 1
