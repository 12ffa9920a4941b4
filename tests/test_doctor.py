"""What the doctor says of a healthy set-up, and of those that newcomers make."""

import configparser
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import photos
import pytest
from PIL import Image

from deepfill_jax import sharding
from deepfill_jax.data import sources
from deepfill_jax.doctor import examination, machine, memory, pictures, training
from deepfill_jax.doctor.case import OK, SKIPPED, WARNING, WRONG, Case
from deepfill_jax.errors import RunError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Training and validation pictures that differ."""
    folder = tmp_path_factory.mktemp("photos")
    return photos.write(folder / "train"), photos.write(folder / "val", size=48)


def make_config(folders, **changes):
    config = runpy.run_path(str(ROOT / "configs/smoke.py"))["get_config"]("official")
    config.batch_size = config.eval.batch_size = 8  # Tests run on eight virtual devices.
    config.data.source, config.data.val_source = (f"folder:{folder}" for folder in folders)
    config.model.init = "unit_variance"
    config.optimizer.learning_rate = 1e-3
    config.update_from_flattened_dict(changes)
    return config


def examine(config, workdir, only=()):
    """Findings by check; of `only` these checks and those that learn what they need."""
    checks = {name: check for name, check in examination.CHECKS.items() if name in only}
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        if only:
            patch.setattr(examination, "CHECKS", checks)
        for name, finding in examination.examine(config, workdir):
            found.setdefault(name, []).append(finding)
    return found


def only_finding(found, name):
    (finding,) = found[name]
    return finding.level, finding.text


def write_masks(folder, area, count=4):
    folder.mkdir()
    for i in range(count):
        mask = np.zeros((40, 40), np.uint8)
        mask[: round(40 * area)] = 255
        Image.fromarray(mask).save(folder / f"{i}.png")
    return folder


def test_nothing_is_wrong_with_a_healthy_set_up_and_only_one_folder_is_written(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "TIMED_STEPS", 3)
    # Its step is the one that test_train compiles.
    config = make_config(folders, ema_decay=0.5, **{"optimizer.learning_rate": 1e-4})
    found = examine(config, tmp_path / "run")
    assert list(found) == list(examination.CHECKS)
    texts = {name: finding.text for name, each in found.items() for finding in each}
    levels = {name: [finding.level for finding in each] for name, each in found.items()}
    assert not {WRONG, SKIPPED} & {level for each in levels.values() for level in each}, texts
    assert levels["pictures"] == [OK, OK] and levels["validation"] == [OK]
    assert levels["memory"] == levels["overfit"] == [OK]
    assert "8 x cpu" in texts["devices"]
    assert "over 3 steps, 4 take 1 min" in texts["speed"]
    assert [p.relative_to(tmp_path / "run") for p in (tmp_path / "run").rglob("*.*")] == [
        Path("doctor/batch.png")
    ]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["doctor"]
    grid = np.asarray(Image.open(tmp_path / "run/doctor/batch.png"))
    masked, image, mask = np.split(grid, 3, axis=1)
    hole = mask > 0
    assert grid.shape == (8 * 32, 3 * 32, 3) and 0.1 < hole.mean() < 0.7
    assert (masked[~hole] == image[~hole]).all() and len(np.unique(masked[hole])) == 1


def test_one_wrong_thing_does_not_hide_the_next(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "nvidia_gpu", lambda: "NVIDIA H100")
    masks = write_masks(tmp_path / "masks", area=0.9)
    kinds = {"masks.weights.folder": 1.0, "masks.folder": str(masks)}
    config = make_config(folders, batch_size=12, **kinds, **{"data.source": "folder:/no/such"})
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match="5 wrong"):
        examination.run(config, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    wrong = {line.split()[1]: line for line in lines if line.startswith(WRONG)}
    assert list(wrong) == ["devices", "workdir", "settings", "pictures", "masks"]
    assert {line.split()[1] for line in lines if line.startswith(SKIPPED)} == {
        *("validation", "batch", "memory", "speed", "overfit")
    }
    assert "5 wrong, 5 skipped" in lines[-1] and "docs/losses.md" in lines[-1]


def test_a_gpu_that_jax_does_not_see(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "nvidia_gpu", lambda: "NVIDIA H100")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    level, text = only_finding(examine(make_config(folders), tmp_path, ["devices"]), "devices")
    assert level == WRONG and "NVIDIA H100" in text and 'pip install "jax[cuda12]"' in text
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    _, text = only_finding(examine(make_config(folders), tmp_path, ["devices"]), "devices")
    assert "unset JAX_PLATFORMS" in text and "pip" not in text


def test_a_gpu_is_known_by_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H100'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert machine.nvidia_gpu() == "NVIDIA H100"


def test_versions_are_compared_with_the_tested_ones():
    fine = {name: oldest for name, (oldest, _) in machine.TESTED.items()}
    (finding,) = machine.judge_versions(fine)
    assert finding.level == OK and "jax 0.10.2" in finding.text
    newest = {name: f"{newest}.1" for name, (_, newest) in machine.TESTED.items()}
    assert [finding.level for finding in machine.judge_versions(newest)] == [OK]
    odd = fine | {"jax": "0.9.12", "flax": "0.13.0", "optax": None}
    found = {finding.text.split()[0]: finding for finding in machine.judge_versions(odd)}
    assert found["jax"].level == WRONG and "older than 0.10.2" in found["jax"].text
    assert found["flax"].level == WARNING and "newer than 0.12.12" in found["flax"].text
    assert found["optax"].level == WRONG and "pip install" in found["optax"].text


def test_the_oldest_versions_are_those_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["install_requires"] + setup["options.extras_require"]["train"]
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)", listed, re.MULTILINE))
    bounds["python"] = setup["options"]["python_requires"].removeprefix(">=")
    bounds["jaxlib"] = bounds["jax"]
    assert {name: oldest for name, (oldest, _) in machine.TESTED.items()} == {
        name: bounds[name] for name in machine.TESTED
    }


@pytest.mark.parametrize("place", ["file", "/proc/self/run"])
def test_a_workdir_that_cannot_be_written(folders, tmp_path, place):
    (tmp_path / "file").write_text("")
    found = examine(make_config(folders), tmp_path / place, ["devices", "workdir"])
    level, text = only_finding(found, "workdir")
    assert level == WRONG and place in text and "another --workdir" in text


def test_a_disk_without_room_for_the_checkpoints(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    found = examine(make_config(folders), tmp_path, ["devices", "workdir"])
    level, text = only_finding(found, "workdir")
    assert level == WRONG and "5 checkpoints" in text and "config.keep_latest" in text


@pytest.mark.parametrize(
    "changes, level, message",
    [
        ({}, OK, "step 2, from which this one goes on"),
        ({"seed": 7}, WARNING, "other values (config.seed: 0, now 7)"),
        ({"num_steps": 2}, WARNING, "nothing is left to do"),
        (
            {"seed": 7, "model.architecture": "mmagic"},
            WRONG,
            "optimisers (config.model.architecture: 'official', now 'mmagic');",
        ),
        ({"optimizer.clip_norm": 1.0}, WRONG, "config.optimizer.clip_norm: 0.0, now 1.0"),
    ],
)
def test_a_workdir_that_holds_a_run(folders, tmp_path, changes, level, message):
    (tmp_path / "checkpoints/2").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(make_config(folders).to_dict()))
    found = examine(make_config(folders, **changes), tmp_path, ["devices", "workdir"])
    room, run = found["workdir"]
    assert room.level == OK
    assert run.level == level and message in run.text


@pytest.mark.parametrize(
    "changes, level, message",
    [
        ({"batch_size": 12}, WRONG, "config.batch_size=12 must be a multiple of the 8 devices"),
        ({"optimizer.decay_steps": 3}, WARNING, "config.optimizer.decay_steps=3 ends before"),
        ({"optimizer.learning_rate": 1.0}, WARNING, "learning_rate=1 is far from the usual"),
        ({"eval.every": 9}, WARNING, "config.eval.every=9 validates at the end or never"),
        ({"loss.l1_whole": 0.0}, WARNING, "config.loss asks for no L1 in the hole"),
    ],
)
def test_settings(folders, tmp_path, changes, level, message):
    found = examine(make_config(folders, **changes), tmp_path, ["devices", "settings"])
    assert only_finding(found, "settings")[0] == level
    assert message in only_finding(found, "settings")[1]


def test_a_small_batch_is_a_warning_beside_a_discriminator_alone(folders):
    assert "batch_size=4 is small" in next(
        training.odd_settings(make_config(folders, batch_size=4))
    )
    alone = make_config(folders, batch_size=4, **{"loss.adversarial": 0.0})
    assert not list(training.odd_settings(alone))


@pytest.mark.parametrize(
    "source, message",
    [
        ("folder:/no/such/place", "there is no folder /no/such/place"),
        ("folder:{empty}", "none of its 0 picture files can be read"),
        ("tfds", "has none of the forms"),
    ],
)
def test_pictures_that_are_not_there(folders, tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    source = source.format(empty=tmp_path / "empty")
    config = make_config(folders, **{"data.source": source, "data.val_source": source})
    found = examine(config, tmp_path, ["pictures", "validation", "batch"])
    level, text = only_finding(found, "pictures")
    assert level == WRONG and message in text
    # Of the validation source only what is new is said.
    assert only_finding(found, "validation")[0] == SKIPPED
    assert only_finding(found, "batch") == (SKIPPED, "needs the source, see above.")


def test_bad_files_are_counted_and_training_pictures_found_in_validation(folders, tmp_path):
    train = photos.write(tmp_path / "train")
    (train / "03.png").write_bytes((train / "03.png").read_bytes()[:100])
    val = photos.write(tmp_path / "val", count=3, size=48)
    (val / "again.png").write_bytes((train / "05.png").read_bytes())
    found = examine(make_config((train, val)), tmp_path, ["pictures", "validation"])
    bad = found["pictures"][0]
    assert bad.level == WARNING and "1 of 10 files" in bad.text and "03.png" in bad.text
    shared = found["validation"][-1]
    assert shared.level == WARNING and "1 of 4 are training pictures too" in shared.text
    same = examine(make_config((train, train)), tmp_path, ["pictures", "validation"])
    assert "config.data.val_source is config.data.source" in same["validation"][-1].text


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data.crop_size": 64}, "100% are below config.data.crop_size=64"),
        ({"image_size": 64}, "100% are below config.image_size=64"),
        ({"data.crop_size": 16}, "crops of config.data.crop_size=16 px are enlarged to 32"),
        ({"data.crop_size": 40}, None),
        ({}, None),
    ],
)
def test_sizes(folders, changes, message):
    finding = pictures.judge_sizes(np.full((10, 2), 40), make_config(folders, **changes))
    assert finding.level == (WARNING if message else OK)
    assert (message or "shorter sides 40 to 40 px.") in finding.text


def test_wide_pictures_need_a_crop(folders):
    sizes = np.array([[400, 100], [100, 100]])
    assert "50% are far from square" in pictures.judge_sizes(sizes, make_config(folders)).text
    cropped = make_config(folders, **{"data.crop_size": 100})
    assert pictures.judge_sizes(sizes, cropped).level == OK


@pytest.mark.parametrize("area, level", [(0.9, WRONG), (1.0, WRONG), (0.3, OK), (0.01, WRONG)])
def test_mask_files_may_be_inverted_or_empty(folders, tmp_path, area, level):
    masks = write_masks(tmp_path / "masks", area)
    changes = {"masks.weights.folder": 1.0, "masks.folder": str(masks)}
    file_finding = examine(make_config(folders, **changes), tmp_path, ["masks"])["masks"][0]
    assert file_finding.level == level
    assert (f"{masks}" in file_finding.text) and (area < 0.5 or "inverted?" in file_finding.text)


def test_areas_of_drawn_masks(folders, tmp_path):
    level, text = only_finding(examine(make_config(folders), tmp_path, ["masks"]), "masks")
    assert level == OK and text.startswith("box_and_strokes: the hole is ")
    counts = [int(n) for n in re.findall(r"%: (\d+)", text)]
    assert sum(counts) == pictures.DRAWN and len(counts) > 2
    assert pictures.judge_areas("box", [0.01, 0.02], from_files=False).level == WARNING
    whole = pictures.judge_areas("files", [0.1, 1.0, 0.1], from_files=True)
    assert whole.level == WARNING and "1 of 3 leave nothing" in whole.text


def test_tensorflow_that_holds_gpus(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "hide_gpus", lambda: None)
    monkeypatch.setattr(pictures.tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
    found = examine(make_config(folders), tmp_path, ["tensorflow"])
    assert only_finding(found, "tensorflow")[0] == WRONG


def test_memory_is_compared_with_the_plan(folders, tmp_path, monkeypatch):
    assert memory.judge_memory(5, 10, "are free").level == OK
    assert memory.judge_memory(9, 10, "are free").level == WARNING
    monkeypatch.setattr(memory, "_available_memory", lambda: 1000)
    found = examine(make_config(folders), tmp_path, ["devices", "memory", "speed"])
    level, text = only_finding(found, "memory")
    assert level == WRONG and "config.grad_accum_steps" in text
    assert only_finding(found, "speed") == (SKIPPED, "needs the train step, see above.")


def test_speed_that_pictures_limit_and_runs_that_take_months(folders):
    config = make_config(folders, num_steps=1_000_000)
    common = {"steps": 10, "step_seconds": 1.0, "waiting": 0.01, "input_seconds": 0.1}
    assert training.judge_speed(config, **common | {"step_seconds": 0.2}).level == OK
    fine = training.judge_speed(config, **common | {"step_seconds": 0.2}).text
    assert "40 images/s" in fine and "take 55.5 hours" in fine and "80 a second" in fine
    assert "pictures limit" in training.judge_speed(config, **common | {"waiting": 0.5}).text
    assert "pictures limit" in training.judge_speed(config, **common | {"input_seconds": 2.0}).text
    assert "take a GPU" in training.judge_speed(config, **common | {"step_seconds": 5.0}).text


def test_a_learning_rate_of_nothing_does_not_overfit(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "OVERFIT_STEPS", 6)
    monkeypatch.setattr(training, "OVERFIT_RATE", 0.0)
    config = make_config(folders, **{"optimizer.learning_rate": 1e-12})
    level, text = only_finding(
        examine(config, tmp_path, ["pictures", "batch", "overfit"]), "overfit"
    )
    assert level == WRONG and "does not fall" in text and "4 examples of 32 px" in text
    diverged = training.judge_overfit(np.array([1.0, np.nan]), (4, 32, 32, 3), 1e-3)
    assert diverged.level == WRONG


def test_what_a_check_raises_is_a_finding(folders, tmp_path, monkeypatch):
    def broken(case):
        raise RuntimeError("no memory\nmore")
        yield

    monkeypatch.setattr(examination, "CHECKS", {"a": broken, "b": broken, "c": machine.devices})
    found = examine(make_config(folders), tmp_path)
    assert only_finding(found, "a") == (WRONG, "failed with RuntimeError: no memory")
    assert only_finding(found, "b")[0] == SKIPPED and only_finding(found, "c")[0] == OK


def test_large_images_are_shrunk_to_overfit():
    batch = {"image": np.zeros((2, 200, 200, 3)), "mask": np.zeros((2, 200, 200, 1))}
    shrunk = training._shrink(batch, 64)
    assert shrunk["image"].shape == (2, 64, 64, 3) and shrunk["mask"].shape == (2, 64, 64, 1)


def doctor(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "deepfill_jax.doctor", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_exit_codes_of_the_command(tmp_path):
    smoke = "--config=configs/smoke.py:official"
    result = doctor(smoke)
    assert result.returncode == 2 and "--workdir is missing" in result.stderr
    result = doctor(smoke, "--config.batchsize=1", "--workdir=x")
    assert result.returncode == 2 and "config.batchsize does not exist" in result.stderr
    (tmp_path / "run").write_text("")
    nowhere = [f"--config.data.{name}=folder:/no/such" for name in ("source", "val_source")]
    result = doctor(smoke, *nowhere, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 1 and result.stderr.startswith("error: 2 wrong")
    assert "overfit" in result.stdout and "Traceback" not in result.stderr


def test_a_case_knows_what_is_missing(folders, tmp_path):
    case = Case(make_config(folders), tmp_path)
    with pytest.raises(Exception, match="needs the train step"):
        case.need("train_step")
    case.mesh = sharding.make_mesh(jax.devices()[:1])
    case.need("mesh")
