"""Tests of the ablations of configs/best.py."""

import argparse
import importlib
import json
import runpy
import sys
from pathlib import Path

import photos
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
ablations = importlib.import_module("ablations")


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def _values(row, folder):
    return json.loads(ablations.make_config(row, folder, 3).to_json())


ROWS_OF_BEST = [("best", row) for row in ablations.ROWS_OF_BEST]


@pytest.mark.parametrize(
    ("recipe", "row"), [("base", row) for row in ablations.ROWS] + ROWS_OF_BEST
)
def test_each_row_differs_from_its_recipe_only_by_its_changes(recipe, row, tmp_path):
    expected = _values(recipe, tmp_path)
    for key, value in (ablations.ROWS | ablations.ROWS_OF_BEST)[row].items():
        *parents, last = key.split(".")
        part = expected
        for name in parents:
            part = part[name]
        assert part[last] != value, f"{key} already has this value"
        part[last] = value
        if parents == ["optimizer"]:  # The discriminator's follows.
            expected["discriminator_optimizer"][last] = value
    assert _values(row, tmp_path) == expected


def test_row_best_is_configs_best(tmp_path):
    config = ablations.make_config("best", tmp_path, 0)
    shipped = runpy.run_path(str(ablations.CONFIGS / "best.py"))["get_config"]("64")
    for part in ("model", "loss", "optimizer", "masks"):
        assert config[part].to_dict() == shipped[part].to_dict()
    for other in ("base", "published"):
        assert _values(other, tmp_path) != _values("best", tmp_path)


def test_warm_up_and_average_scale_with_the_number_of_steps(tmp_path):
    config = ablations.make_config("best", tmp_path, 0)
    ablations.set_steps(config, 400)
    assert (config.num_steps, config.optimizer.decay_steps) == (400, 400)
    assert (config.optimizer.warmup_steps, config.ema_decay) == (20, 0.95)
    config = ablations.make_config("no average of parameters", tmp_path, 0)
    ablations.set_steps(config, 400)
    assert config.ema_decay == 0


def test_rows_with_the_same_network_and_batch_are_measured_once(results, tmp_path, monkeypatch):
    results.mkdir()
    measured = []

    def seconds_per_step(config):
        measured.append((config.model.width, config.batch_size))
        return float(len(measured))

    monkeypatch.setattr(ablations, "seconds_per_step", seconds_per_step)
    rows = ["base", "no flips", "full width", "batch 8", "half the rate", "with a discriminator"]
    costs = {"base": 1, "no flips": 1, "full width": 2, "batch 8": 3, "half the rate": 1}
    for _ in range(2):  # The second time, the costs are read from the results.
        measured_costs = ablations.measure_costs(rows, tmp_path)
        assert measured_costs == costs | {"with a discriminator": 4}
    assert measured == [(12, 16), (24, 16), (12, 8), (12, 16)]


def test_table_lists_means_over_seeds_best_first(results):
    results.mkdir()
    for row, seed, l1 in (("a", 0, 9.0), ("a", 1, 10.0), ("b", 0, 8.0)):
        metrics = {"l1_hole": l1, "psnr": 20.0, "ssim": 0.5}
        metrics |= {"lpips": 0.1} if row == "b" else {}
        result = {"row": row, "seconds": 9, "seed": seed, "steps": 7, "metrics": metrics}
        (results / f"{row}-9-{seed}.json").write_text(json.dumps(result))
    ablations.main([f"--tables={results / 'page.md'}"])
    assert (results / "page.md").read_text().splitlines()[-2:] == [
        "| b | 9 | 7 | 8.00 | 8.00 | 20.00 | 0.5000 | 0.100 |",
        "| a | 9 | 7 | 9.50 | 9.00, 10.00 | 20.00 | 0.5000 | – |",
    ]


def test_tuned_rows_continue_the_run_of_best_with_their_seed(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(
        ablations.loop, "train", lambda config, workdir: trained.append((config, workdir.name))
    )
    options = argparse.Namespace(photos=tmp_path, workdir=tmp_path, seconds=60)
    row = "tuned, L1 and LPIPS"
    config, _ = ablations.train(row, options, {"best": 1.0, row: 2.0}, seed=1)
    (first, best), (second, tuned) = trained
    assert (best, tuned) == ("best-60-1", "tuned_L1_and_LPIPS-60-1")
    assert (first.num_steps, second.num_steps) == (60, 30)
    assert second is config and config.init_from == str(tmp_path / best)
    assert (config.loss.adversarial, config.loss.perceptual) == (0, 2)
    assert config.model.width == first.model.width and config.image_size == 64


@pytest.mark.slow
def test_row_is_trained_once_and_scored(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablations, "ROWS", {"tiny": {"model.width": 2, "batch_size": 8}})
    monkeypatch.setattr(ablations, "measure_costs", lambda *_: {"tiny": 1.0})
    monkeypatch.setattr(ablations, "PICTURES", 2)
    for part in ("train", "val"):
        photos.write(tmp_path / part, count=8)
    arguments = [f"--photos={tmp_path}", f"--workdir={tmp_path}", "--rows=tiny", "--seeds=0"]
    arguments.append("--seconds=25")
    ablations.main(arguments)
    first = capsys.readouterr().out
    assert "| tiny | 25 | 25 | " in first
    ablations.main(arguments)
    assert capsys.readouterr().out.splitlines()[-1] == first.splitlines()[-1]
