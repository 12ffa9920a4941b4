"""Reruns of the command after changes; the network is replaced by an inversion of the hole."""

import json
import os
from pathlib import Path

import pytest
from made import make_picture
from PIL import Image
from test_inpaint import command, filled, here, invert  # noqa: F401, two are fixtures.

from deepfill_jax.inpaint import __main__ as inpaint
from deepfill_jax.inpaint import records

pytestmark = pytest.mark.usefixtures("here", "filled")


@pytest.mark.parametrize(
    "more, changed",
    [
        (["--dilate", "1"], "dilate"),
        (["--dilate", "1", "--feather", "1"], "dilate, feather"),
        (["--strategy", "crop"], "strategy"),
        (["--working-size", "64"], "working size"),
        (["--mask-threshold", "0.25"], "mask threshold"),
        (["--invert-mask"], "invert mask"),
        (["--resize-mask"], "resize mask"),
        (["--mask-orientation", "stored"], "mask orientation"),
        (["--sketches", "masks"], "sketch"),
        (["--model", "other"], "model"),
    ],
)
def test_results_made_with_other_options_are_redone(capsys, more, changed):
    assert command() == 0
    for arguments in (more, []):  # And back again.
        assert command(*arguments) == 0
        out = capsys.readouterr().out
        assert f"changed: {changed}; existing results made otherwise: 3, redone" in out
        assert "3 completed, 0 already done" in out
        assert command(*arguments) == 0
        assert capsys.readouterr().out.startswith("0 completed, 3 already done")
    assert command("--max-megapixels", "9", "--no-mask-check") == 0  # These change no result.
    assert capsys.readouterr().out.startswith("0 completed, 3 already done")


@pytest.mark.parametrize("name", ["images/a.bmp", "masks/a.png", "model"])
def test_files_replaced_by_older_ones_are_noticed(monkeypatch, capsys, name):
    Path("model").write_text("")
    monkeypatch.setattr(inpaint, "_filler", lambda options: (invert, [Path("model")]))
    assert command() == 0
    os.utime(name, (1e9, 1e9))
    assert command() == 0
    again = 3 if name == "model" else 1
    assert f"{again} completed, {3 - again} already done" in capsys.readouterr().out


def test_masks_of_another_folder_are_noticed(capsys):
    assert command() == 0
    Path("other").mkdir()
    for seed, stem in enumerate(("a", "b.1", "c")):
        Image.fromarray(make_picture(7, 5, seed + 7)[1]).save(f"other/{stem}.png")
        os.utime(f"other/{stem}.png", (1e9, 1e9))  # Older than the results.
    assert command(masks="other") == 0
    assert "3 completed, 0 already done" in capsys.readouterr().out


def test_other_paths_to_the_same_files_change_nothing(capsys, tmp_path):
    assert command() == 0
    (tmp_path / "moved").mkdir()
    for name in ("images", "masks", "out"):
        os.rename(name, f"moved/{name}")
    paths = {name: str(tmp_path / "moved" / name) for name in ("images", "masks")}
    assert command(**paths, output="moved/out") == 0
    assert "\n0 completed, 3 already done" in capsys.readouterr().out


def test_results_without_a_record_are_kept_and_counted(capsys):
    Path("out").mkdir()
    for stem in ("a", "b.1"):
        Path(f"out/{stem}.png").write_text("of another program")
    os.utime("out/b.1.png", (1e9, 1e9))  # Older than its inputs.
    assert command() == 0
    out = capsys.readouterr().out
    assert "2 completed, 1 already done" in out
    assert "kept: 1 existing results without a record of how they were made; --overwrite" in out
    assert Path("out/a.png").read_text() == "of another program"
    # An unreadable record is none.
    records._path(Path("out/c.png")).write_text("{")
    assert command() == 0
    assert "kept: 2 existing results" in capsys.readouterr().out
    assert command("--overwrite") == 0
    assert "kept:" not in capsys.readouterr().out


def test_a_result_edited_by_hand_is_kept(capsys):
    assert command() == 0
    Path("out/a.png").write_text("retouched")
    assert command() == 0
    assert Path("out/a.png").read_text() == "retouched"
    assert command(images="images/b.1.bmp", masks="masks/b.1.png", output="out/b.1.png") == 0
    capsys.readouterr()
    assert command() == 0  # The file that --output named has no record any more.
    assert "kept: 1 existing results" in capsys.readouterr().out


def test_a_run_killed_before_the_record_is_written_leaves_none(monkeypatch):
    assert command() == 0
    path = records._path(Path("out/a.png"))
    assert json.loads(path.read_text())["dilate"] == 0

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "atomic_write", killed)
        assert command("--dilate", "1", images="images/a.bmp", output="out") == 130
    assert not path.exists()  # Otherwise the next run would take the new result for the old one.


def test_records_are_not_counted_as_files(capsys):
    assert command() == 0
    os.mkdir("again")
    capsys.readouterr()
    assert command(images="out", output="again") == 0
    assert "passed over" not in capsys.readouterr().out


def test_a_single_result_file_leaves_no_record():
    assert command(images="images/a.bmp", masks="masks/a.png", output="x.png") == 0
    assert sorted(os.listdir()) == ["images", "masks", "x.png"]
