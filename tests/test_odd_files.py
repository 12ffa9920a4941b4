"""The folder command on files of all kinds: each has a line, and none goes wrong in silence."""

import os

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tifffile")
pytest.importorskip("cv2", minversion="5")

from odd_files import FILES, GOOD, PASSED_OVER, SIDE, make  # noqa: E402

from deepfill_jax import pictures  # noqa: E402
from deepfill_jax.errors import printable  # noqa: E402
from deepfill_jax.inpaint import __main__ as inpaint  # noqa: E402
from deepfill_jax.inpaint.finding import RECORDS_FOLDER


def unchanged(picture, mask, sketch):
    return np.where(mask, picture.pixels.max() - picture.pixels, picture.pixels), "crop", 1.0, 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    try:
        make(folder / "images")
    except (OSError, UnicodeError):
        pytest.skip("This disk refuses some of the names.")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:16, 8:16] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.mark.parametrize("format", ["png", "same"])
def test_each_file_has_its_line(folder, format, monkeypatch, capfd):
    monkeypatch.setattr(inpaint, "_filler", lambda options: (unchanged, ()))
    monkeypatch.chdir(folder)
    arguments = ["--model", "m", "--images", "images", "--masks", "mask.png", "--format", format]
    with pytest.raises(SystemExit) as end:
        inpaint.main([*arguments, "--output", format])
    out, error = capfd.readouterr()
    assert end.value.code == 1 and "Traceback" not in error and "Warning" not in error
    assert out.splitlines()[-1] == PASSED_OVER
    *failed, _ = error.splitlines()
    lines = [*failed, *out.splitlines()]
    assert len(lines) == len(FILES) + 2
    wrong = []
    for name, (_, expected) in FILES.items():
        shown = printable(f"images/{name}")
        line = [x for x in lines if x.startswith((f"{shown} ", f"failed: {shown}"))]
        if format == "png" and not (len(line) == 1 and expected in line[0]):
            wrong.append((name, expected, line))
        assert len(line) == 1, name
    assert not wrong
    completed = [x for x in lines if GOOD in x]
    assert len(set(os.listdir(format)) - {RECORDS_FOLDER}) == len(completed)
    assert len(completed) > 40


def test_known_pixels_stay_or_a_line_says_otherwise(folder):
    """What the command wrote holds what the files hold, bit by bit; masked pixels aside."""
    mask = pictures.read_mask(folder / "mask.png")
    compared = 0
    for name, (_, expected) in FILES.items():
        result = folder / "png" / f"{os.path.splitext(name)[0]}.png"
        if not result.exists() or "would be the result" in expected:
            continue
        before, after = pictures.read(folder / "images" / name), pictures.read(result)
        np.testing.assert_array_equal(
            np.where(mask, 0, before.pixels), np.where(mask, 0, after.pixels), err_msg=name
        )
        assert (before.alpha is None) == (after.alpha is None), name
        if before.alpha is not None:
            np.testing.assert_array_equal(before.alpha, after.alpha, err_msg=name)
        compared += 1
    assert compared > 40
