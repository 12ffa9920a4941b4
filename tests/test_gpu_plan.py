"""Tests of the plan of a training step for GPUs, which needs JAX's CUDA plugin but no GPU."""

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu" / "plan.py"
PATHS = os.pathsep.join(map(str, (ROOT, SCRIPT.parents[1], SCRIPT.parent)))
PLUGINS = {f"jax-cuda{version}-plugin" for version in (12, 13)}
HAS_PLUGIN = any(d.name in PLUGINS for d in importlib.metadata.distributions())
MAX_GB = 5.5  # 16 images per device; most of it are feature maps in bfloat16.
MAX_MB_BETWEEN_DEVICES = 70  # The gradients have 41; those of two passes are sent apart.

sys.path.append(str(SCRIPT.parent))
scaling = importlib.import_module("scaling")


def test_scaling_names_what_limits_a_step():
    # 3.35 GB, so 1 ms, for any batch; 1 ms and 0.5 ms of arithmetic per image; 0.25 ms for 64 MB.
    constants = scaling.Constants(3.35e9, 3.35e9, 989e9 / 2, 64e6, 2)
    one = scaling.estimate(constants, gpus=1, batch=9)
    assert one.gpu == pytest.approx(10e-3) and one.exchange == 0 and one.limit == "GPU"
    eight = scaling.estimate(constants, gpus=8, batch=9)
    expected = 2 * 7 / 8 * 64e6 / 450e9 + 2 * 2 * 3 * 10e-6
    assert eight.exchange == pytest.approx(expected) and eight.limit == "GPU"
    many = scaling.estimate(constants, gpus=256, batch=9)
    assert many.limit == "exchange" and many.seconds == many.gpu + many.exchange
    assert scaling.estimate(constants, gpus=8, batch=9, per_process=8).limit == "host"
    least = scaling.busy_batch(constants, gpus=256)
    assert scaling.estimate(constants, gpus=256, batch=least - 8).limit == "exchange"


def test_scaling_reads_the_plans():
    constants = scaling.Constants.read(scaling.PLANS)
    plan = json.loads(scaling.PLANS.read_text().splitlines()[0])
    assert plan["plan"] == "1:16:bfloat16"
    assert constants.gpu_seconds(16, "h100") == pytest.approx(plan["seconds"]["memory"])


def test_plan_counts_the_bytes_that_a_compiled_program_moves():
    # In a process of its own, because plan.py sets environment variables before it imports JAX.
    code = """
import plan
program = '''HloModule step

%inner (a: f32[9]) -> f32[9] {
  ROOT %b = f32[9]{0} negate(%a)
}

ENTRY %main (x: f32[2,3], y: bf16[4]) -> f32[2,3] {
  %x = f32[2,3]{1,0} parameter(0)
  %y = bf16[4]{0} parameter(1)
  %f = f32[2,3]{1,0} fusion(%x, %y), kind=kLoop, calls=%inner
  %s = f32[2,3]{1,0} all-reduce-start(%f), channel_id=1
  ROOT %d = f32[2,3]{1,0} all-reduce-done(%s)
}
'''
assert list(plan.instructions(program)) == [("fusion", 24, 56), ("all-reduce", 24, 48)]
assert plan.size("(f32[], pred[8]{0})") == 12
assert plan.Plan.parse("8:128:tf32") == (8, 128, "tf32")
"""
    environment = {**os.environ, "PYTHONPATH": PATHS}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PLUGIN, reason="needs JAX's CUDA plugin: pip install '.[cuda]'")
def test_training_step_for_gpus_exchanges_gradients_only_and_stays_on_the_device(tmp_path):
    output = tmp_path / "plan.jsonl"
    plans = ["1:16:bfloat16", "8:128:bfloat16"]
    subprocess.run(
        [sys.executable, SCRIPT, "--output", output, "--plans", *plans],
        check=True,
        env={**os.environ, "PYTHONPATH": PATHS},
    )
    one, eight = (json.loads(line) for line in output.read_text().splitlines())
    assert one["to_host"] == eight["to_host"] == 0
    assert one["between_devices"] == {} and set(eight["between_devices"]) == {"all-reduce"}
    assert 0 < eight["mb_between_devices"] < MAX_MB_BETWEEN_DEVICES
    assert max(one["gb"], eight["gb"]) < MAX_GB
    assert one["convolutions"] == eight["convolutions"] > 0
