"""Tests of file names that are not valid UTF-8 or that a console cannot print."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import photos
import pytest
from made import make_model, make_picture
from PIL import Image

from deepfill_jax import distributed, masks, weights
from deepfill_jax.atomic_write import atomic_write, unfinished_path
from deepfill_jax.data import pipeline, sources
from deepfill_jax.data.examples import Preprocessing
from deepfill_jax.errors import UsageError, printable, report
from deepfill_jax.inpaint import batch
from deepfill_jax.inpaint.finding import RECORDS_FOLDER
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.inpaint.plan import Failure, Job

LATIN = os.fsdecode(b"caf\xe9")
NAMES = [LATIN, "two\nlines", "\x1b[31mred", "\u202egnp.exe", "\u65e5\u672c", "[bold]b", "%s {0}"]


def named(folder, suffix=".png"):
    """Writes small images and masks with unusual names; skips if the disk refuses them."""
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for seed, name in enumerate(NAMES):
        image, mask = make_picture(7, 5, seed)
        try:
            Image.fromarray(image).save(folder / "images" / f"{name}{suffix}")
        except (OSError, UnicodeError):
            pytest.skip("This disk refuses such names.")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


def test_unprintable_characters_are_escaped():
    shown = ["caf\\xe9", "two\\nlines", "\\x1b[31mred", "\\u202egnp.exe", *NAMES[4:]]
    assert list(map(printable, NAMES)) == shown
    done = batch.Done(Job(Path(NAMES[0]), None, Path(NAMES[1])), "5x7", 0.5, "crop", 1.0, 0.07, 0.0)
    assert str(done).startswith("caf\\xe9 -> two\\nlines: 5x7, 50 % hole, crop, scale 1, ")
    assert str(Failure(NAMES[1])) == "failed: two\\nlines"


def test_errors_are_printed_with_escapes(capsys):
    assert report(UsageError(f"{LATIN}\x1b: wrong.\n  more")) == 2
    assert capsys.readouterr().err == "error: caf\\xe9\\x1b: wrong.\n  more\n"


COMMAND = """
import sys
from deepfill_jax.inpaint import __main__ as inpaint
import numpy as np
def fill(picture, mask, sketch):
    pixels = getattr(picture, "pixels", picture)
    return np.where(mask, 255 - pixels, pixels), "crop", 1.0, 0.0
inpaint._filler = lambda options: (fill, ())
inpaint.main(sys.argv[1:])
"""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "cp1252"])
def test_batch_with_unusual_names_is_completed(tmp_path, encoding):
    folder = named(tmp_path)
    (folder / "images" / f"broken {LATIN}.png").write_text("not an image")
    places = ("--model", "x", "--images", "images", "--masks", "masks", "--output", "out")
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND, *places],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
        capture_output=True,
        timeout=120,
    )
    out, error = ran.stdout.decode(encoding), ran.stderr.decode(encoding, "replace")
    assert ran.returncode == 1 and "Traceback" not in error, error
    lines = out.splitlines()
    assert len(lines) == len(NAMES) + 1
    assert f"{len(NAMES)} completed, 0 already done, 1 failed" in lines[-1]
    assert any("images/caf\\xe9.png -> out/caf\\xe9.png: 5x7" in line for line in lines)
    assert "images/broken caf\\xe9.png" in error
    assert set(os.listdir(folder / "out")) == {RECORDS_FOLDER, *(f"{name}.png" for name in NAMES)}


def test_files_with_unusual_names_are_written(tmp_path):
    path = tmp_path / f"{LATIN}.txt"
    with atomic_write(path) as unfinished:
        unfinished.write_text("whole")
    assert path.read_text() == "whole"
    # The name is stable, so that the leftovers of earlier versions are deleted.
    digest = hashlib.sha256("caf\u00e9.png".encode()).hexdigest()[:16]
    assert unfinished_path(Path("caf\u00e9.png")).name == f".{digest}.tmp"


@pytest.mark.parametrize("kind", ["folder", "flist"])
def test_training_reads_unusual_names(tmp_path, kind):
    folder = photos.write(tmp_path / LATIN, 3)
    for old, new in zip(sorted(folder.iterdir()), NAMES[:3], strict=True):
        old.rename(folder / f"{new}.png")
    spec = f"folder:{folder}"
    if kind == "flist":
        names = [os.fsencode(folder / f"{name}.png") for name in NAMES[:3] if "\n" not in name]
        (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(names))  # Starts with a BOM.
        spec = f"flist:{tmp_path / 'list'}"
    source = sources.open_source(spec)
    assert len(source) == {"folder": 3, "flist": 2}[kind] and not source.left_out
    distributed.assert_same_on_all_processes("The pictures", source.identity())
    stream = pipeline.Stream(
        source,
        Preprocessing(16, 0, enlarge=False, flip=False),
        masks.sampler({"box": 1.0}, min_area=0.1, max_area=0.9, folder=""),
        seed=0,
        batch_size=2,
    )
    assert next(pipeline.evaluation_batches(stream))["image"].shape == (2, 16, 16, 3)


def test_models_with_unusual_names_are_loaded(tmp_path):
    path = tmp_path / f"{LATIN}.safetensors"
    weights.save(path, make_model("official"))
    assert Inpainter.load(path).working_size == 256
