"""The command on files and folders."""

import numpy as np
import pytest
from made import make_model, make_picture, truncate
from PIL import Image

from deepfill_jax import inpaint, weights
from deepfill_jax.inpainter import Inpainter
from deepfill_jax.pictures import read


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    weights.save(path, make_model("official"))
    return path


@pytest.fixture
def folders(tmp_path):
    """Three pictures in `images`, of other suffixes and with masks in `masks`."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for seed, stem in enumerate(("a", "b.1", "c")):
        picture, mask = make_picture(7, 5, seed)
        Image.fromarray(picture).save(tmp_path / "images" / f"{stem}.bmp")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{stem}.png")
    (tmp_path / "images" / "notes.txt").write_text("no picture")
    (tmp_path / "images" / "._a.bmp").write_text("what macOS leaves behind")
    return tmp_path


def command(model, images, masks, output, *more):
    """Runs the command in this process and returns its exit code."""
    try:
        inpaint.main(
            ["--model", f"{model}", "--images", f"{images}", "--masks", f"{masks}"]
            + ["--output", f"{output}", *more]
        )
    except SystemExit as end:
        return end.code
    return 0


def test_command_on_folders(model_file, folders, capsys):
    images, masks, output = folders / "images", folders / "masks", folders / "new" / "out"
    assert command(model_file, images, masks, output) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{images / 'a.bmp'} -> {output / 'a.png'}: 5x7, ")
    assert lines[-1].startswith("3 of 3 pictures completed in ")
    inpainter = Inpainter.load(model_file)
    for stem in ("a", "b.1", "c"):
        expected = inpainter(images / f"{stem}.bmp", masks / f"{stem}.png")
        np.testing.assert_array_equal(read(output / f"{stem}.png").pixels, expected)
    assert len(list(output.iterdir())) == 3


def test_command_on_a_file_with_one_mask(model_file, folders):
    image, mask = folders / "images" / "a.bmp", folders / "masks" / "c.png"
    assert command(model_file, image, mask, folders / "here" / "new.bmp") == 0
    assert command(model_file, image, mask, folders / "folder") == 0
    expected = Inpainter.load(model_file)(image, mask)
    for path in (folders / "here" / "new.bmp", folders / "folder" / "a.png"):
        np.testing.assert_array_equal(read(path).pixels, expected)
    # A folder of images may share it, too.
    assert command(model_file, folders / "images", mask, folders / "shared") == 0
    np.testing.assert_array_equal(read(folders / "shared" / "a.png").pixels, expected)
    assert len(list((folders / "shared").iterdir())) == 3


def test_command_overwrites_only_when_told(model_file, folders, capsys):
    image, mask = folders / "images" / "a.bmp", folders / "masks" / "a.png"
    output = folders / "out.png"
    output.write_text("precious")
    assert command(model_file, image, mask, output) == 2
    assert f"Already there: {output}; --overwrite" in capsys.readouterr().err
    assert output.read_text() == "precious"
    assert command(model_file, image, mask, output, "--overwrite") == 0
    assert read(output).pixels.shape == (7, 5, 3)


def test_command_does_the_others_when_one_cannot_be_read(model_file, folders, capsys):
    truncate(folders / "images" / "b.1.bmp")
    Image.new("L", (3, 3)).save(folders / "masks" / "c.png")
    assert command(model_file, folders / "images", folders / "masks", folders / "out") == 1
    assert [path.name for path in (folders / "out").iterdir()] == ["a.png"]
    output = capsys.readouterr()
    assert "1 of 3 pictures completed" in output.out
    unreadable, misfit, last = output.err.splitlines()
    assert "b.1.bmp cannot be read as a picture" in unreadable
    assert "c.bmp ->" in misfit and "The mask is 3x3 pixels, the image 5x7" in misfit
    assert "b.1.bmp" in last and "c.bmp" in last and "a.bmp" not in last


def refused(capsys, *arguments):
    """The one line that the command refuses with, before it reads the model."""
    assert command("absent.safetensors", *arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    return line


def test_command_refuses_before_any_work(folders, capsys):
    images, masks, output = (folders / name for name in ("images", "masks", "out"))
    for name in ("a.png", "c.png"):
        (masks / name).rename(folders / name)
    line = refused(capsys, images, masks, output)
    assert "holds no mask for a.bmp, c.bmp; a mask has its image's name" in line
    for name in ("a.png", "c.png"):
        (folders / name).rename(masks / name)

    line = refused(capsys, folders / "absent", masks, output)
    assert "absent is neither a picture nor a folder that holds pictures" in line
    assert "nowhere is neither" in refused(capsys, images, folders / "nowhere", output)
    (folders / "empty").mkdir()
    assert "empty is neither" in refused(capsys, folders / "empty", masks, output)

    assert "cannot be a folder" in refused(capsys, images, masks, images / "notes.txt")
    assert "no model file absent.safetensors" in refused(capsys, images, masks, output)

    Image.new("RGB", (7, 5)).save(images / "a.png")
    assert "holds other files named as a.bmp up to" in refused(capsys, images, masks, output)
