"""Search for image files: suffix or content decides, and other files are counted by suffix."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfill_jax import pictures
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import batch
from deepfill_jax.inpaint.finding import find
from deepfill_jax.inpaint.plan import Failure, Job, plan
from deepfill_jax.pictures import Encoded
from deepfill_jax.pictures.formats import file_format
from deepfill_jax.pictures.masks import UNCHECKED


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    return tmp_path


def image(path, kind, mode="RGB", **options):
    Path(path).parent.mkdir(exist_ok=True, parents=True)
    Image.new(mode, (8, 8)).save(path, kind, **options)


def results(images="images", output="out", masks=None, **options):
    """Returns the paths of the results, or the reasons of failures."""
    planned = plan(Path(images), masks and Path(masks), Path(output), **options)
    return [x.reason if isinstance(x, Failure) else str(x.result) for x in planned]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_formats_are_detected_by_content(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    assert file_format(file.getvalue()[:64]) == kind
    assert pictures.read(Encoded(file.getvalue())).format == kind


@pytest.mark.parametrize(
    "head", [b"", b"BM is a text", b"RIFF....WAVE", b"\0\0\0\x18ftypmp42\0\0\0\0mp42", b"%PDF"]
)
def test_other_contents_are_not_detected_as_images(head):
    assert file_format(head.ljust(64, b" ")) is None


def test_images_with_any_suffix_are_found(here):
    for name, kind in [("a.jfif", "JPEG"), ("b.jpe", "JPEG"), ("c", "PNG"), ("d.dat", "WEBP")]:
        image(f"images/{name}", kind)
    image("images/e.png", "JPEG")
    image("images/f.JPG", "PNG")
    assert results() == [f"out/{stem}.png" for stem in "abcdef"]
    own = ["a.jfif", "b.jpe", "c.png", "d.webp", "e.jpg", "f.png"]
    assert results(keep_format=True) == [f"out/{name}" for name in own]


def test_unwritable_format_of_an_image_fails_while_planning(here):
    image("images/a.png", "GIF", "P")
    assert results(keep_format=True) == ["images/a.png: .gif can be read but not written."]
    image("b.png", "PNG", "RGBA")
    job = Job(Path("b.png"), None, Path("out/b.jpg"))
    np.testing.assert_array_equal(batch.load(job, UNCHECKED).hole, True)  # The result is opaque.
    image("m.png", "PNG", "L")
    with pytest.raises(
        UsageError, match="out/b.jpg cannot be written: JPEG cannot hold transparency"
    ):
        batch.load(job._replace(mask=Path("m.png")), UNCHECKED)


def test_other_files_are_counted_by_suffix(here):
    image("images/a.png", "PNG")
    for name in ("x.txt", "y.TXT", "z.xmp", "README", ".a.png", "clip.mp4"):
        Path("images", name).write_text("BM, but no image")
    # A raw photograph contains a preview, which must not count as the image.
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite("raw.tif", np.zeros((8, 8, 3), np.uint8), subfiletype=1)
    Path("raw.tif").rename("images/raw.nef")
    os.mkfifo("images/pipe.png")
    for name in ("deep", "deeper", "out"):
        Path("images", name).mkdir()
    found = find(Path("images"), skip=[Path("images/out"), None])
    assert found.files == [Path("images/a.png")]
    assert found.passed_over() == (
        "passed over: 2 .txt, 1 .mp4, 1 .nef, 1 .xmp, 1 hidden, 1 special, 1 without suffix; "
        "2 folders not searched (--recursive)"
    )
    assert find(Path("images/a.png")).passed_over() == ""


def test_error_for_a_folder_without_images_lists_its_files(here):
    Path("images/deep").mkdir()
    Path("images/x.psd").write_text("")
    with pytest.raises(UsageError, match=r"files \(passed over: 1 .psd; 1 folder not searched"):
        find(Path("images"))


def test_recursive_searches_subfolders(here):
    image("images/a.png", "PNG")
    image("images/deep/a.png", "PNG")
    image("images/deep/deeper/b.png", "PNG")
    image("images/out/old.png", "PNG")
    Path("images/deep/loop").symlink_to(here / "images", target_is_directory=True)
    options = {"output": "images/out", "recursive": True}
    expected = ["a.png", "deep/a.png", "deep/deeper/b.png"]
    assert results(**options) == [f"images/out/{name}" for name in expected]
    assert Path("images/out/deep/deeper").is_dir()
    # Masks have the same subfolders as the images.
    image("masks/a.png", "PNG")
    image("masks/deep/deeper/mask_b.png", "PNG")
    image("masks/deep/b.png", "PNG")
    planned = plan(Path("images"), Path("masks"), Path("out"), recursive=True)
    assert [str(getattr(item, "mask", item)) for item in planned] == [
        "masks/a.png",
        "failed: images/deep/a.png: masks contains no mask named a, a_mask, a-mask, mask_a or a.png"
        "; masks without an image: masks/deep/b.png.",
        "masks/deep/deeper/mask_b.png",
        "failed: images/out/old.png: masks contains no mask named old, old_mask, old-mask, "
        "mask_old or old.png; masks without an image: masks/deep/b.png.",
    ]
