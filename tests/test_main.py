"""The commands of training, evaluation and inpainting, run as a user runs them."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import photos
import pytest
from absl.testing import flagsaver
from PIL import Image

from deepfill_jax.convert.__main__ import main as convert
from deepfill_jax.evaluate import __main__ as evaluate_command
from deepfill_jax.inpaint.__main__ import main as inpaint
from deepfill_jax.main import main

ROOT = Path(__file__).parents[1]


def start(*arguments, module="deepfill_jax.main"):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def run(command, *arguments):
    """Runs a command in this process, which saves the time that its imports take."""
    arguments = [str(x) for x in arguments]
    with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)  # The config library looks for --config.KEY here.
        command(arguments)


def source(folder):
    return [f"--config.data.{name}=folder:{folder}" for name in ("source", "val_source")]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--config is missing"),
        (["--config=configs/nothing.py"], "configs/nothing.py"),
        (["--config=smok"], "There is no config smok, did you mean smoke?"),
        (["--config=configs/smoke.py", "--config.batchsize=3"], "config.batchsize does not exist"),
        (["--config=configs/smoke.py", "--config.num_steps=many"], "--config.num_steps=many"),
        (["--config=configs/places.py:v1"], "Unknown settings 'v1'; choose mmagic or official"),
        (["--config=places:v1"], "Unknown settings 'v1'; choose mmagic or official"),
        (["--config=configs/smoke.py", "--wokdir=x"], "workdir"),
        (["--config=configs/smoke.py"], "--workdir is missing"),
    ],
)
def test_usage_error_prints_one_line_and_returns_exit_code_2(arguments, message):
    result = start(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1 and "Traceback" not in result.stderr


def test_train_evaluate_export_inpaint(tmp_path, capsys, monkeypatch):
    """Runs all commands from training images to an inpainting result; one image is damaged.

    Training runs in a process of its own.
    """
    folder = photos.write(tmp_path / "photos")
    (folder / "notes.txt").write_text("not an image")
    whole = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(whole[: len(whole) // 2])
    workdir = tmp_path / "run"
    common = ["--config=configs/smoke.py:official", f"--workdir={workdir}", *source(folder)]

    result = start(*common, "--config.keep_latest=1")
    assert result.returncode == 0, result.stderr
    validations = re.findall(r"step (\d)  validation on 6: l1_hole ([0-9.]+)", result.stdout)
    assert "step 4/4" in result.stdout and len(validations) == 2
    assert "03.png" in result.stderr

    monkeypatch.setattr(evaluate_command, "restart_with_huge_pages", lambda: None)
    # This process has eight devices.
    evaluate = ["python", f"--workdir={workdir}", "--mode=eval", "--config.eval.batch_size=8"]
    run(main, *evaluate)
    printed = capsys.readouterr().out
    assert "l1_hole" in printed and "holes: box_and_strokes" in printed
    assert [path.name for path in (workdir / "eval/step_4").iterdir()] == ["report.json"]

    run(main, *evaluate, "--step=best", f"--output={tmp_path / 'best'}")
    step, l1_hole = min(validations, key=lambda validation: float(validation[1]))
    kept = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert kept == {step, "4"}
    scores = json.loads((tmp_path / "best/report.json").read_text())["summary"]
    assert scores["l1_hole"]["mean"] == pytest.approx(float(l1_hole), rel=1e-3)

    common[0] = "--config=smoke:official"
    report = [f"--report={tmp_path / 'page'}", "--compare=mean"]
    run(evaluate_command.main, *common, "--config.eval.batch_size=8", *report)
    page = (tmp_path / "page/index.html").read_text()
    assert "Evaluation of step_4" in page and "<svg" in page and 'alt="attention"' in page
    assert "deepfill evaluate \\\n" in page
    assert shlex.quote(f"--workdir={workdir}") in page and "official, width 2" in page
    written = json.loads((tmp_path / "page/mean/report.json").read_text())
    assert f"{written['summary']['l1_hole']['mean']:.3f}" in page

    model = tmp_path / "model.safetensors"
    run(convert, workdir, "--output", model)

    mask = Image.new("L", (40, 40))
    mask.paste(255, (10, 10, 20, 20))
    mask.save(tmp_path / "mask.png")
    where = ["--images", folder / "00.png", "--masks", tmp_path / "mask.png"]
    output = tmp_path / "completed.png"
    run(inpaint, "--model", model, *where, "--output", output)
    assert Image.open(output).size == (40, 40)
