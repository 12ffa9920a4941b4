import json
import os
import subprocess
import sys
from pathlib import Path

import photos
import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks/pipeline.py"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a choice of cores")
def test_pipeline_benchmark_times_ours_with_both_settings(tmp_path):
    photos.write(tmp_path, count=4)
    command = [sys.executable, BENCHMARK, "--photos", tmp_path, "--cores", "1", "--rounds", "1"]
    printed = subprocess.run(
        [*command, "--seconds", "0.05"], check=True, timeout=120, capture_output=True, text=True
    ).stdout
    results = [json.loads(line) for line in printed.splitlines()]
    assert [result["settings"] for result in results] == ["mmagic", "official"]
    for result in results:
        assert (result["loader"], result["cores"], result["to_fewest_cores"]) == ("ours", 1, 1.0)
        low, high = result["spread"]
        assert 0 < low == result["images_per_second"] == high
        assert 0 < result["own_ms_per_image"] < 1000 / result["images_per_second"]
