import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import photos
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
pipeline = importlib.import_module("pipeline")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a choice of cores")
@pytest.mark.parametrize("settings", [pytest.param("mmagic", marks=pytest.mark.slow), "official"])
def test_pipeline_benchmark_times_ours_with_both_settings(tmp_path, settings):
    photos.write(tmp_path, count=4)
    options = SimpleNamespace(cores=[1], rounds=1, seconds=0.05)
    sides = {"ours": (sys.executable, settings)}
    (result,) = pipeline.compare(sides, tmp_path, options)
    assert result["settings"] == settings
    assert (result["loader"], result["cores"], result["to_fewest_cores"]) == ("ours", 1, 1.0)
    low, high = result["spread"]
    assert 0 < low == result["images_per_second"] == high
    assert 0 < result["own_ms_per_image"] < 1000 / result["images_per_second"]
