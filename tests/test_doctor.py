"""The doctor's findings for a valid set-up and for common mistakes."""

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import photos
import pytest
import training as training_runs
from absl.testing import flagsaver
from PIL import Image

from deepfill_jax import sharding
from deepfill_jax.data import sources
from deepfill_jax.doctor import __main__ as command
from deepfill_jax.doctor import examination, machine, memory, pictures, training
from deepfill_jax.doctor.case import ERROR, OK, SKIPPED, WARNING, Case, need
from deepfill_jax.errors import RunError
from deepfill_jax.train.step import BoundStep

ROOT = Path(__file__).parents[1]
pytest_plugins = ["training"]
pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Creates folders of different training and validation images."""
    folder = tmp_path_factory.mktemp("photos")
    return photos.write(folder / "train"), photos.write(folder / "val", size=48)


def make_config(folders, **changes):
    """Returns the config that test_train compiles, for which the networks learn in a few steps."""
    train, val = folders
    return training_runs.make_config(
        train, **{"data.val_source": f"folder:{val}", "model.init": "unit_variance"} | changes
    )


def examine(config, workdir, only=()):
    """Returns the findings of all checks, or of those in `only`, by name."""
    checks = {name: check for name, check in examination.CHECKS.items() if name in only}
    findings = {}
    with pytest.MonkeyPatch.context() as patch:
        if only:
            patch.setattr(examination, "CHECKS", checks)
        for name, finding in examination.examine(config, workdir):
            findings.setdefault(name, []).append(finding)
    return findings


def only_finding(findings, name):
    (finding,) = findings[name]
    return finding.level, finding.text


def write_masks(folder, area, count=4):
    folder.mkdir()
    for i in range(count):
        mask = np.zeros((40, 40), np.uint8)
        mask[: round(40 * area)] = 255
        Image.fromarray(mask).save(folder / f"{i}.png")
    return folder


def test_valid_set_up_passes_all_checks_and_only_one_folder_is_written(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "TIMED_STEPS", 3)
    findings = examine(make_config(folders), tmp_path / "run")
    assert list(findings) == list(examination.CHECKS)
    texts = {name: finding.text for name, each in findings.items() for finding in each}
    levels = {name: [finding.level for finding in each] for name, each in findings.items()}
    assert not {ERROR, SKIPPED} & {level for each in levels.values() for level in each}, texts
    assert levels["pictures"] == [OK, OK] and levels["validation"] == [OK]
    assert levels["memory"] == levels["overfit"] == [OK]
    assert "8 x cpu" in texts["devices"]
    assert "over 3 steps, so 4 steps take 1 min" in texts["speed"]
    assert [p.relative_to(tmp_path / "run") for p in (tmp_path / "run").rglob("*.*")] == [
        Path("doctor/batch.png")
    ]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["doctor"]
    grid = np.asarray(Image.open(tmp_path / "run/doctor/batch.png"))
    masked, image, mask = np.split(grid, 3, axis=1)
    hole = mask > 0
    assert grid.shape == (8 * 32, 3 * 32, 3) and 0.1 < hole.mean() < 0.7
    assert (masked[~hole] == image[~hole]).all() and len(np.unique(masked[hole])) == 1


def test_one_error_does_not_hide_the_next(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "nvidia_gpu", lambda: "NVIDIA H100")
    masks = write_masks(tmp_path / "masks", area=0.9)
    kinds = {"masks.weights.folder": 1.0, "masks.folder": str(masks)}
    config = make_config(folders, batch_size=12, **kinds, **{"data.source": "folder:/no/such"})
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match="Errors found: 5"):
        examination.run(config, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    errors = {line.split()[1]: line for line in lines if line.startswith(ERROR)}
    assert list(errors) == ["devices", "workdir", "settings", "pictures", "masks"]
    assert {line.split()[1] for line in lines if line.startswith(SKIPPED)} == {
        *("validation", "batch", "memory", "speed", "overfit")
    }
    assert "error: 5, skipped: 5" in lines[-1] and "docs/losses.md" in lines[-1]


def test_gpu_that_jax_does_not_use_is_an_error(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "nvidia_gpu", lambda: "NVIDIA H100")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    level, text = only_finding(examine(make_config(folders), tmp_path, ["devices"]), "devices")
    assert level == ERROR and "NVIDIA H100" in text and 'pip install "jax[cuda13]"' in text
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    _, text = only_finding(examine(make_config(folders), tmp_path, ["devices"]), "devices")
    assert "unset JAX_PLATFORMS" in text and "pip" not in text


def test_nvidia_gpu_is_the_name_from_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H100'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert machine.nvidia_gpu() == "NVIDIA H100"


def test_versions_are_compared_with_the_tested_ones():
    supported = {name: oldest for name, (oldest, _) in machine.TESTED.items()}
    (finding,) = machine.judge_versions(supported)
    oldest = supported["jax"]
    assert finding.level == OK and f"jax {oldest}" in finding.text
    newest = {name: f"{newest}.1" for name, (_, newest) in machine.TESTED.items()}
    assert [finding.level for finding in machine.judge_versions(newest)] == [OK]
    mixed = supported | {"jax": "0.6.12", "flax": "0.13.0", "optax": None}
    findings = {finding.text.split()[0]: finding for finding in machine.judge_versions(mixed)}
    assert findings["jax"].level == ERROR and f"older than {oldest}" in findings["jax"].text
    assert findings["flax"].level == WARNING and "newer than 0.12.12" in findings["flax"].text
    assert findings["optax"].level == ERROR and "pip install" in findings["optax"].text


def test_oldest_versions_match_setup_cfg():
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
def test_workdir_that_cannot_be_written_is_an_error(folders, tmp_path, place):
    (tmp_path / "file").write_text("")
    findings = examine(make_config(folders), tmp_path / place, ["devices", "workdir"])
    level, text = only_finding(findings, "workdir")
    assert level == ERROR and place in text and "another --workdir" in text


def test_too_little_disk_space_for_checkpoints_is_an_error(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    findings = examine(make_config(folders), tmp_path, ["devices", "workdir"])
    level, text = only_finding(findings, "workdir")
    assert level == ERROR and "5 checkpoints" in text and "config.keep_latest" in text


@pytest.mark.parametrize(
    "changes, level, message",
    [
        ({}, OK, "step 2; training resumes from it"),
        ({"seed": 7}, WARNING, "other settings (config.seed: 0, now 7)"),
        ({"num_steps": 2}, WARNING, "which is finished, because config.num_steps=2"),
        (
            {"seed": 7, "model.architecture": "mmagic"},
            ERROR,
            "networks (config.model.architecture: 'official', now 'mmagic');",
        ),
        ({"optimizer.clip_norm": 1.0}, WARNING, "config.optimizer.clip_norm: 0.0, now 1.0"),
    ],
)
def test_earlier_run_in_workdir_is_compared_with_config(folders, tmp_path, changes, level, message):
    (tmp_path / "checkpoints/2").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(make_config(folders).to_dict()))
    findings = examine(make_config(folders, **changes), tmp_path, ["devices", "workdir"])
    disk_space, run = findings["workdir"]
    assert disk_space.level == OK
    assert run.level == level and message in run.text


@pytest.mark.parametrize(
    "changes, level, message",
    [
        ({"batch_size": 12}, ERROR, "config.batch_size=12 must be a multiple of the 8 devices"),
        ({"optimizer.decay_steps": 3}, WARNING, "config.optimizer.decay_steps=3 ends before"),
        ({"optimizer.learning_rate": 1.0}, WARNING, "learning_rate=1 is far from the usual"),
        ({"eval.every": 9}, WARNING, "config.eval.every=9 validates at the end or never"),
        ({"loss.l1_whole": 0.0}, WARNING, "config.loss has no L1 term in the hole"),
    ],
)
def test_invalid_and_unusual_settings_are_reported(folders, tmp_path, changes, level, message):
    findings = examine(make_config(folders, **changes), tmp_path, ["devices", "settings"])
    assert only_finding(findings, "settings")[0] == level
    assert message in only_finding(findings, "settings")[1]


def test_small_batch_is_a_warning_only_with_a_discriminator(folders):
    assert "batch_size=4 is small" in next(
        training.odd_settings(make_config(folders, batch_size=4))
    )
    without_discriminator = make_config(folders, batch_size=4, **{"loss.adversarial": 0.0})
    assert not list(training.odd_settings(without_discriminator))


@pytest.mark.parametrize(
    "source, message",
    [
        ("folder:/no/such/place", "there is no folder /no/such/place"),
        ("folder:{empty}", "0 image files were found, but none can be used"),
        ("tfds", "has none of the forms"),
    ],
)
def test_missing_images_are_an_error(folders, tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    source = source.format(empty=tmp_path / "empty")
    config = make_config(folders, **{"data.source": source, "data.val_source": source})
    findings = examine(config, tmp_path, ["pictures", "validation", "batch"])
    level, text = only_finding(findings, "pictures")
    assert level == ERROR and message in text
    # The same error is not repeated for the validation source.
    assert only_finding(findings, "validation")[0] == SKIPPED
    assert only_finding(findings, "batch") == (SKIPPED, "needs the source, see above.")


def test_unreadable_files_and_training_images_in_validation_are_counted(folders, tmp_path):
    train = photos.write(tmp_path / "train")
    (train / "03.png").write_bytes((train / "03.png").read_bytes()[:100])
    with Image.open(train / "04.png") as opened:
        opened.putalpha(100)
        opened.save(train / "04.png")
    val = photos.write(tmp_path / "val", count=3, size=48)
    (val / "again.png").write_bytes((train / "05.png").read_bytes())
    findings = examine(make_config((train, val)), tmp_path, ["pictures", "validation"])
    bad = findings["pictures"][0]
    assert bad.level == WARNING and "2 of 10 files" in bad.text and "03.png" in bad.text
    shared = findings["validation"][-1]
    assert shared.level == WARNING and "1 of 4 are training images too" in shared.text
    same = examine(make_config((train, train)), tmp_path, ["pictures", "validation"])
    assert "config.data.val_source is config.data.source" in same["validation"][-1].text


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data.crop_size": 64}, "100% are below config.data.crop_size=64"),
        ({"image_size": 64}, "100% are below config.image_size=64"),
        ({"data.crop_size": 16}, "crops of config.data.crop_size=16 px are enlarged to 32"),
        ({"data.crop_size": 40}, "100% are not larger than config.data.crop_size=40"),
        ({"data.crop_size": 39}, None),
        ({}, None),
    ],
)
def test_images_smaller_than_the_crop_are_a_warning(folders, changes, message):
    finding = pictures.judge_sizes(np.full((10, 2), 40), make_config(folders, **changes))
    assert finding.level == (WARNING if message else OK)
    assert (message or "shorter sides 40 to 40 px.") in finding.text


def test_wide_images_without_a_crop_are_a_warning(folders):
    sizes = np.array([[400, 100], [100, 100]])
    assert "50% are far from square" in pictures.judge_sizes(sizes, make_config(folders)).text
    cropped = make_config(folders, **{"data.crop_size": 100})
    assert pictures.judge_sizes(sizes, cropped).level == OK


@pytest.mark.parametrize("area, level", [(0.9, ERROR), (1.0, ERROR), (0.3, OK), (0.01, ERROR)])
def test_inverted_and_empty_mask_files_are_errors(folders, tmp_path, area, level):
    masks = write_masks(tmp_path / "masks", area)
    changes = {"masks.weights.folder": 1.0, "masks.folder": str(masks)}
    file_finding = examine(make_config(folders, **changes), tmp_path, ["masks"])["masks"][0]
    assert file_finding.level == level
    assert (f"{masks}" in file_finding.text) and (
        area < 0.5 or "seem inverted" in file_finding.text
    )


def test_mask_areas_are_listed_and_extreme_areas_are_warnings(folders, tmp_path):
    level, text = only_finding(examine(make_config(folders), tmp_path, ["masks"]), "masks")
    assert level == OK and text.startswith("box_and_strokes: the hole is ")
    counts = [int(n) for n in re.findall(r"%: (\d+)", text)]
    assert sum(counts) == pictures.MASK_SAMPLES and len(counts) > 2
    assert pictures.judge_areas("box", [0.01, 0.02], from_files=False).level == WARNING
    whole = pictures.judge_areas("files", [0.1, 1.0, 0.1], from_files=True)
    assert whole.level == WARNING and "1 of 3 leave no known pixels" in whole.text


def test_tensorflow_that_uses_gpus_is_an_error(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "hide_gpus", lambda: None)
    monkeypatch.setattr(pictures.tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
    findings = examine(make_config(folders), tmp_path, ["tensorflow"])
    assert only_finding(findings, "tensorflow")[0] == ERROR


def test_planned_memory_is_compared_with_free_memory(folders, tmp_path, monkeypatch):
    assert memory.judge_memory(5, 10, "are free").level == OK
    assert memory.judge_memory(9, 10, "are free").level == WARNING
    monkeypatch.setattr(memory, "_available_memory", lambda: 1000)
    findings = examine(make_config(folders), tmp_path, ["devices", "memory", "speed"])
    level, text = only_finding(findings, "memory")
    assert level == ERROR and "config.grad_accum_steps" in text
    assert only_finding(findings, "speed") == (SKIPPED, "needs the train step, see above.")


def test_compiled_step_of_a_perceptual_recipe_keeps_its_weights(folders, tmp_path, monkeypatch):
    jitted = jax.jit(lambda state, batch, weights: (state, {"loss": weights}))
    step = BoundStep(jitted, jnp.float32(3.0))
    monkeypatch.setattr(memory.build, "train_step", lambda config, mesh: step)
    state = jax.ShapeDtypeStruct((), jnp.float32)
    monkeypatch.setattr(memory.build, "abstract_state", lambda config, mesh: state)
    config = make_config(folders)
    case = Case(config, tmp_path, mesh=sharding.make_mesh(jax.devices()[:1]))
    assert [finding.level for finding in memory.memory(case)] == [OK]
    batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in memory._shapes(config).items()}
    assert case.train_step(jnp.float32(0.0), batch)[1] == {"loss": 3.0}


def test_slow_input_and_very_long_runs_are_warnings(folders):
    config = make_config(folders, num_steps=1_000_000)
    common = {"steps": 10, "step_seconds": 1.0, "waiting": 0.01, "input_seconds": 0.1}
    assert training.judge_speed(config, **common | {"step_seconds": 0.2}).level == OK
    text = training.judge_speed(config, **common | {"step_seconds": 0.2}).text
    assert "40 images/s" in text and "take 55.5 hours" in text and "80 a second" in text
    assert "limits the speed" in training.judge_speed(config, **common | {"waiting": 0.5}).text
    slow_input = training.judge_speed(config, **common | {"input_seconds": 2.0})
    assert "limits the speed" in slow_input.text
    assert "use a GPU" in training.judge_speed(config, **common | {"step_seconds": 5.0}).text


def test_loss_that_does_not_fall_on_one_batch_is_an_error(folders, tmp_path, monkeypatch):
    def step(state, batch):
        return state, {"loss/generator": jnp.float32(0.5)}

    monkeypatch.setattr(training, "OVERFIT_STEPS", 6)
    monkeypatch.setattr(training.build, "train_step", lambda *_: step)
    findings = examine(make_config(folders), tmp_path, ["pictures", "batch", "overfit"])
    level, text = only_finding(findings, "overfit")
    assert level == ERROR and "does not fall" in text and "4 examples of 32 px" in text
    diverged = training.judge_overfit(np.array([1.0, np.nan]), (4, 32, 32, 3), 1e-3)
    assert diverged.level == ERROR


def test_exception_of_a_check_becomes_a_finding(folders, tmp_path, monkeypatch):
    def broken(case):
        raise RuntimeError("no memory\nmore")
        yield

    monkeypatch.setattr(examination, "CHECKS", {"a": broken, "b": broken, "c": machine.devices})
    findings = examine(make_config(folders), tmp_path)
    assert only_finding(findings, "a") == (ERROR, "failed with RuntimeError: no memory")
    assert only_finding(findings, "b")[0] == SKIPPED and only_finding(findings, "c")[0] == OK


def test_large_images_are_downsampled_for_overfitting():
    batch = {"image": np.zeros((2, 200, 200, 3)), "mask": np.zeros((2, 200, 200, 1))}
    shrunk = training._shrink(batch, 64)
    assert shrunk["image"].shape == (2, 64, 64, 3) and shrunk["mask"].shape == (2, 64, 64, 1)


def test_command_exits_with_2_for_usage_errors_and_1_for_findings(tmp_path, monkeypatch, capsys):
    smoke = "--config=smoke:official"
    monkeypatch.setattr(command, "restart_with_huge_pages", lambda: None)

    def doctor(*arguments):
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as end:
            command.main([smoke, *arguments])
        return end.value.code, capsys.readouterr().err

    code, error = doctor()
    assert code == 2 and "--workdir is missing" in error
    code, error = doctor("--config.batchsize=1", "--workdir=x")
    assert code == 2 and "config.batchsize does not exist" in error
    (tmp_path / "run").write_text("")
    nowhere = [f"--config.data.{name}=folder:/no/such" for name in ("source", "val_source")]
    # The wrong size ends the check of memory before it compiles the step.
    arguments = [smoke, *nowhere, f"--workdir={tmp_path / 'run'}", "--config.image_size=36"]
    result = subprocess.run(
        [sys.executable, "-m", "deepfill_jax.doctor", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1 and result.stderr.startswith("error: Errors found: 3")
    assert "overfit" in result.stdout and "Traceback" not in result.stderr


def test_need_raises_if_an_attribute_is_missing(folders, tmp_path):
    case = Case(make_config(folders), tmp_path)
    with pytest.raises(Exception, match="needs the train step"):
        need(case.train_step, "train step")
    case.mesh = sharding.make_mesh(jax.devices()[:1])
    need(case.mesh, "mesh")
