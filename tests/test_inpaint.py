"""The command on files and folders; all but one test replace the network by an inversion."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from made import make_model, make_picture, truncate
from PIL import Image

from deepfill_jax import pictures, trained, weights
from deepfill_jax.atomic_write import unfinished_path
from deepfill_jax.convert import sources
from deepfill_jax.inpaint import __main__ as inpaint
from deepfill_jax.inpaint.finding import RECORDS_FOLDER
from deepfill_jax.inpaint.inpainter import Inpainter

STEMS = ("a", "b.1", "c")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Creates a working folder: three images in `images`, their masks in `masks`, other files."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "masks"):
        Path(name).mkdir()
    for seed, stem in enumerate(STEMS):
        picture, mask = make_picture(7, 5, seed)
        Image.fromarray(picture).save(f"images/{stem}.bmp")
        Image.fromarray(mask).save(f"masks/{stem}.png")
    Path("images/notes.txt").write_text("no picture")
    Path("images/._a.bmp").write_text("what macOS leaves behind")
    return tmp_path


@pytest.fixture
def filled(monkeypatch):
    """Replaces the network of the command; returns the options that the command passed to it."""
    made_of = []
    monkeypatch.setattr(inpaint, "_filler", lambda options: made_of.append(options) or (invert, []))
    return made_of


def invert(picture, mask, sketch=None):
    pixels = getattr(picture, "pixels", picture)
    return np.where(mask, 255 - pixels, pixels), "crop", 1.0, 0.0


def expected(stem):
    picture, mask = (np.array(x) for x in make_picture(7, 5, STEMS.index(stem)))
    return invert(picture, mask[..., np.newaxis] > 0)[0]


def command(*more, images="images", masks="masks", output="out", model="absent.safetensors"):
    """Runs the command in this process and returns its exit code."""
    try:
        inpaint.main(
            [*("--model", f"{model}", "--images", images, "--masks", masks, "--output", output)]
            + list(more)
        )
    except SystemExit as end:
        return end.code
    return 0


def names(path="out"):
    return sorted(file.name for file in Path(path).iterdir() if file.name != RECORDS_FOLDER)


def contents(path="out"):
    return {name: (Path(path) / name).read_bytes() for name in names(path)}


def test_command_completes_a_folder(here, filled, capsys):
    assert command() == 0
    lines = capsys.readouterr().out.splitlines()
    for stem, line in zip(STEMS, sorted(lines[:3]), strict=True):
        share = 100 * (make_picture(7, 5, STEMS.index(stem))[1] > 0).mean()
        assert line.startswith(
            f"images/{stem}.bmp -> out/{stem}.png: 5x7, {share:.3g} % hole, crop, "
        )
    assert lines[3].startswith("3 completed, 0 already done, 0 failed, in ")
    assert lines[4:] == ["passed over: 1 .txt, 1 hidden"]
    for stem in STEMS:
        np.testing.assert_array_equal(pictures.read(f"out/{stem}.png").pixels, expected(stem))
    assert names() == ["a.png", "b.1.png", "c.png"]


def test_same_format_keeps_the_format_of_each_image(here, filled):
    assert command("--format", "same") == 0
    assert names() == ["a.bmp", "b.1.bmp", "c.bmp"]
    assert command(images="images/a.bmp", output="new/x.tif") == 0
    for path in ("out/a.bmp", "new/x.tif"):
        np.testing.assert_array_equal(pictures.read(path).pixels, expected("a"))
    with Image.open("new/x.tif") as picture:
        assert picture.format == "TIFF"


def test_rerun_skips_current_results(here, filled, capsys):
    Path("out").mkdir()
    Path("out/a.png").write_text("precious")
    unfinished_path(Path("out/c.png")).write_text("half of")
    assert command() == 0
    assert "\n2 completed, 1 already done, 0 failed, in " in capsys.readouterr().out
    assert Path("out/a.png").read_text() == "precious"
    assert names() == ["a.png", "b.1.png", "c.png"]
    assert command() == 0
    assert capsys.readouterr().out.startswith("0 completed, 3 already done, 0 failed, in ")
    assert command("--overwrite") == 0
    assert "\n3 completed, 0 already done" in capsys.readouterr().out
    np.testing.assert_array_equal(pictures.read("out/a.png").pixels, expected("a"))


@pytest.mark.parametrize("changed", ["images/a.bmp", "masks/a.png", "model", "sketches/a.png"])
def test_results_older_than_their_inputs_are_recomputed(here, monkeypatch, capsys, changed):
    monkeypatch.setattr(inpaint, "_filler", lambda options: (invert, [Path("model")]))
    Path("sketches").mkdir()
    for stem in STEMS:
        Image.fromarray(make_picture(7, 5)[1]).save(f"sketches/{stem}.png")
    Path("model").write_text("")
    more = ("--sketches", "sketches")
    assert command(*more) == 0
    assert command(*more) == 0
    assert "0 completed, 3 already done" in capsys.readouterr().out
    newer = Path("out/a.png").stat().st_mtime + 5
    os.utime(changed, (newer, newer))
    assert command(*more) == 0
    again = 3 if changed == "model" else 1
    assert f"{again} completed, {3 - again} already done" in capsys.readouterr().out


def test_changed_mask_changes_the_result(here, filled):
    assert command() == 0
    old = Path("out/a.png").read_bytes()
    os.utime("out/a.png", (1e9, 1e9))
    Image.fromarray(make_picture(7, 5, 9)[1]).save("masks/a.png")
    assert command() == 0
    assert Path("out/a.png").read_bytes() != old


def test_named_output_file_is_overwritten(here, filled, capsys):
    one = {"images": "images/a.bmp", "masks": "masks/a.png", "output": "x.png"}
    Path("x.png").write_text("old")
    assert command(**one) == 0
    assert command(**one) == 0
    assert capsys.readouterr().out.count("1 completed, 0 already done") == 2
    np.testing.assert_array_equal(pictures.read("x.png").pixels, expected("a"))


def test_model_is_checked_even_if_all_results_exist(here, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(inpaint, "_filler", lambda options: (invert, []))
        assert command() == 0
    assert command(model="nonsense") == 2
    assert "There is no model file nonsense" in capsys.readouterr().err


def test_failures_do_not_stop_the_others_and_are_listed(here, filled, capsys):
    truncate(Path("images/b.1.bmp"))
    Image.fromarray(make_picture(3, 3)[1]).save("masks/c.png")
    Image.new("L", (3, 3)).save("images/d.png")
    assert command() == 1
    assert names() == ["a.png"]
    out, err = capsys.readouterr()
    assert "\n1 completed, 0 already done, 3 failed, in " in out and "failed: " not in out
    *failed, summary = err.splitlines()
    assert summary == "error: 3 of 4 images failed; the lines above say why."
    assert all(line.startswith("failed: ") for line in failed)
    unreadable, misfit, maskless = sorted(failed, key=lambda line: line.partition("/")[2])
    assert "images/b.1.bmp cannot be read as an image" in unreadable
    assert "masks/c.png is 3x3, but images/c.bmp is 5x7" in misfit
    assert (
        "images/d.png: masks contains no mask named d, d_mask, d-mask, mask_d or d.png" in maskless
    )
    assert command("--resize-mask") == 1
    assert names() == ["a.png", "c.png"]


def test_shards_together_equal_an_unsharded_run(here, filled, capsys):
    assert command() == 0
    for index in (1, 2, 3, 4):
        assert command("--shard", f"{index}/4", output="parts") == 0
        assert len(names("parts")) == min(index, 3)
    assert contents("parts") == contents("out")
    # Existing results do not move other jobs to another shard.
    Path("parts/b.1.png").unlink()
    assert command("--shard", "1/2", output="parts") == 0
    assert len(names("parts")) == 2


def test_options_reach_the_reader_and_the_model(here, filled, capsys):
    assert command("--invert-mask", "--mask-threshold", "0.2", images="images/a.bmp") == 0
    picture, mask = make_picture(7, 5, 0)
    inverted = invert(picture, mask[..., np.newaxis] == 0)[0]
    np.testing.assert_array_equal(pictures.read("out/a.png").pixels, inverted)
    assert command("--max-megapixels", "34e-6", "--overwrite") == 1
    assert "0 completed, 0 already done, 3 failed" in capsys.readouterr().out


def test_transparent_pixels_are_the_hole_without_masks(here, filled, capsys):
    picture, mask = make_picture(7, 5, 0)
    Image.fromarray(np.dstack([picture, 255 - mask])).save("images/d.png")
    arguments = ["--model", "m", "--images", "images", "--output", "out"]
    with pytest.raises(SystemExit) as end:
        inpaint.main(arguments)
    assert end.value.code == 1 and names() == ["d.png"]
    with Image.open("out/d.png") as result:
        assert result.getchannel("A").getextrema() == (255, 255)
        np.testing.assert_array_equal(np.asarray(result.convert("RGB")), expected("a"))
    for flag in (["--invert-mask"], ["--resize-mask"], ["--mask-threshold", "0.1"]):
        with pytest.raises(SystemExit) as end:
            inpaint.main(arguments + flag)
        assert end.value.code == 2
        assert f"{flag[0]} needs --masks" in capsys.readouterr().err


def test_network_options_reach_the_inpainter(here, monkeypatch, capsys):
    calls = []

    class Fake:
        def complete(self, picture, mask, sketch, **options):
            assert mask.shape == (7, 5, 1) and sketch is None
            calls.append(options)
            return picture.pixels, "auto", 0.5, 7.25

    def load(model, *, working_size):
        calls.append((model, working_size))
        return Fake()

    model = types.SimpleNamespace(metadata={})
    read = types.SimpleNamespace(model=model, files=())
    monkeypatch.setattr(sources, "read", {"places": read}.__getitem__)
    monkeypatch.setattr("deepfill_jax.inpaint.inpainter.Inpainter", load)
    flags = "--working-size 256 --budget 8 --no-detail --no-seamless --dilate 3 --feather 2".split()
    assert command(*flags, images="images/a.bmp", model="places") == 0
    chosen = {"strategy": "auto", "budget": 8.0, "detail": False, "seamless": False}
    chosen |= {"dilate": 3, "feather": 2, "mask_orientation": "upright", "check_mask": True}
    assert calls == [(model, 256), chosen]
    assert "images/a.bmp -> out/a.png: 5x7, 20 % hole, auto, scale 0.5, 7.25 MP processed, " in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "more, message",
    [
        (["--shard", "0/4"], "'0/4' is not I/N with I from 1 to N"),
        (["--shard", "5/4"], "'5/4' is not I/N"),
        (["--shard", "3"], "'3' is not I/N"),
        (["--dilate", "-1"], "argument --dilate: -1 is not at least 0"),
        (["--feather", "x"], "argument --feather: invalid int value: 'x'"),
        (["--working-size", "0"], "argument --working-size: 0 is not at least 1"),
        (["--mask-threshold", "nan"], "argument --mask-threshold: nan is not from 0 to 1"),
        (["--max-megapixels", "inf"], "argument --max-megapixels: inf is not from 1e-06 to"),
        (
            ["--feather", "3"],
            "--feather 3 blends within the rim that --dilate adds to the hole; add --d",
        ),
        (["--feather", "3", "--dilate", "2"], "add --dilate 3 or more"),
        (["--mask-threshold", "1"], "--mask-threshold 1 leaves no hole; choose a value below 1"),
        (["--output", "x.avif", "--images", "images/a.bmp"], "x.avif cannot be written: .avif is"),
        (
            ["--output", "x.png"],
            "x.png has the suffix of a file, but images is a folder; name a folder",
        ),
        (["--budget", "0"], "argument --budget: 0 is not from 1e-06 to 1e+06"),
        (
            ["--budget", "5", "--strategy", "crop"],
            "--budget has no effect with --strategy crop; only auto has one",
        ),
        (["--strategy", "best"], "argument --strategy: invalid choice: 'best'"),
        (
            ["--output", "images"],
            "error: images is a folder of inputs; choose another folder for the results.",
        ),
        (["--output", ""], "argument --output: the path is empty"),
        (["--masks", ""], "argument --masks/--mask: the path is empty"),
        (["--images", "nowhere"], "error: nowhere is neither an image file nor a folder"),
        ([], "error: There is no model file absent.safetensors"),
    ],
)
def test_usage_errors_exit_with_code_2(here, capsys, more, message):
    assert command(*more) == 2
    out, err = capsys.readouterr()
    assert message.lower() in err.lower() and "Traceback" not in err
    assert out == ""


def test_usage_errors_are_reported_before_jax_is_imported(here):
    code = """
import sys
from deepfill_jax.inpaint import __main__ as inpaint
for arguments in (["--wrong"], "--model m --images nowhere --masks m --output o".split()):
    try:
        inpaint.main(arguments)
    except SystemExit as end:
        assert end.code == 2 and "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_terminal_shows_a_progress_bar(here, filled, capsys, monkeypatch):
    truncate(Path("images/c.bmp"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert command() == 1
    out = capsys.readouterr().out
    assert "3/3" in out and "->" not in out
    assert "failed: images/c.bmp cannot be read" in out.replace("\n", " ")


def test_single_failure_prints_one_line(here, filled, capsys):
    Image.new("L", (3, 3), 255).save("masks/a.png")
    flags = ("--no-mask-check",)
    assert command(*flags, images="images/a.bmp", masks="masks/a.png") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: masks/a.png is 3x3, but images/a.bmp is 5x7")


def test_singular_option_names_and_default_model(here, filled, capsys):
    inpaint.main("--image images/a.bmp --mask masks/a.png --output out".split())
    np.testing.assert_array_equal(pictures.read("out/a.png").pixels, expected("a"))
    assert [options.model for options in filled] == [trained.DEFAULT]
    assert capsys.readouterr().err == "model: scenes; choose another with --model\n"
    with pytest.raises(SystemExit) as end:
        inpaint.main("--image images/a.bmp --sketch nowhere --output out2 --model m".split())
    assert end.value.code == 2 and "nowhere is neither an image file" in capsys.readouterr().err


# Interrupted runs.

STOPPED = """
import signal, sys, time
import numpy as np
from deepfill_jax.inpaint import __main__ as inpaint

def slow(picture, mask, sketch):
    time.sleep(0.1)
    return np.where(mask, 255 - picture.pixels, picture.pixels), "crop", 1.0, 0.0

signal.signal(signal.SIGINT, signal.default_int_handler)  # Background jobs ignore it.
inpaint._filler = lambda options: (slow, [])
inpaint.main(sys.argv[1:])
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_interrupted_run_resumes(here, filled, capsys, name):
    for seed in range(3, 12):
        picture, mask = make_picture(40, 50, seed)
        Image.fromarray(picture).save(f"images/{seed}.png")
        Image.fromarray(mask).save(f"masks/{seed}_mask.png")
    flags = "--model absent.safetensors --images images --masks masks --output stopped".split()
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(2):
        assert " -> stopped/" in process.stdout.readline()
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=30)
    if name == "SIGINT":
        assert process.returncode == 130
        assert err == "interrupted: run the same command again to process the remaining images\n"
    done = contents("stopped")
    assert 2 <= len(done) < 12
    # This file simulates a run that was killed while it wrote.
    half = unfinished_path(Path("stopped/c.png"))
    half.write_bytes(b"half of a picture")
    assert command() == 0
    assert command(output="stopped") == 0
    assert contents("stopped") == contents("out")
    there = sum(not name.startswith(".") for name in done)
    assert f"{12 - there} completed, {there} already done" in capsys.readouterr().out


def test_command_with_a_network(here, capsys):
    weights.save(Path("model.safetensors"), make_model("official"))
    assert command("--strategy", "original", model="model.safetensors") == 0
    out = capsys.readouterr().out
    assert "images/a.bmp -> out/a.png: 5x7, " in out and " % hole, original, " in out
    inpainter = Inpainter.load("model.safetensors")
    for stem in STEMS:
        picture, mask = make_picture(7, 5, STEMS.index(stem))
        hole = mask[..., np.newaxis] > 0
        completed = inpainter(picture, hole, strategy="original")
        np.testing.assert_array_equal(pictures.read(f"out/{stem}.png").pixels, completed)
