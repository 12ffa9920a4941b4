"""Pairing, planning, sharding, and the pipeline that reads, completes and writes images."""

import os
import random
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from made import make_picture
from PIL import Image

from deepfill_jax.atomic_write import unfinished_path
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import batch
from deepfill_jax.inpaint.batch import Done
from deepfill_jax.inpaint.inputs import Inputs
from deepfill_jax.inpaint.plan import Failure, Job, Shard, clean, plan
from deepfill_jax.pictures import MaskOptions, Picture


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Creates an empty working folder, so that paths are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*paths):
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def planned(images, masks, output="out", **options):
    """Returns the plan as text: `IMAGE MASK RESULT`, or the reason of a failure."""
    return [
        item.reason if isinstance(item, Failure) else " ".join(map(str, item[:3]))
        for item in plan(Path(images), masks and Path(masks), Path(output), **options)
    ]


# Pairing.


def test_masks_match_by_stem_and_by_mask_suffix(here):
    touch("images/a.jpg", "images/b.1.png", "images/c.bmp", "images/notes.txt", "images/._a.jpg")
    touch("images/deep/d.png")
    touch("masks/a.png", "masks/b.1_mask.png", "masks/c_mask001.png", "masks/c_mask002.jpg")
    touch("masks/c_masks.png", "masks/other.png", "masks/other_mask.png")
    assert planned("images", "masks") == [
        "images/a.jpg masks/a.png out/a.png",
        "images/b.1.png masks/b.1_mask.png out/b.1_mask.png",
        "images/c.bmp masks/c_mask001.png out/c_mask001.png",
        "images/c.bmp masks/c_mask002.jpg out/c_mask002.png",
    ]
    assert planned("images", "masks", keep_format=True)[-1].endswith("out/c_mask002.bmp")
    assert planned("images/a.jpg", "masks", "new/x.png") == ["images/a.jpg masks/a.png new/x.png"]
    assert (here / "out").is_dir() and (here / "new").is_dir()


def test_mask_with_the_full_image_name_matches_only_that_image(here):
    touch("images/a.png", "images/a_mask.png", "masks/a_mask.png")
    assert planned("images", "masks") == [
        "images/a.png: masks contains no mask named a, a_mask, a-mask, mask_a or a.png.",
        "images/a_mask.png masks/a_mask.png out/a_mask.png",
    ]


def test_masks_in_the_folder_of_the_images(here):
    touch("data/a.png", "data/a_mask001.png", "data/a_mask002.png", "data/b_mask.png", "data/c.jpg")
    for masks in ("data", "./data/../data"):
        assert planned("data", masks) == [
            f"data/a.png {Path(masks)}/a_mask001.png out/a_mask001.png",
            f"data/a.png {Path(masks)}/a_mask002.png out/a_mask002.png",
            f"data/b_mask.png: {Path(masks)} contains no mask named b_mask, "
            "b_mask_mask, b_mask-mask, mask_b_mask or b_mask.png.",
            f"data/c.jpg: {Path(masks)} contains no mask named c, c_mask, c-mask, mask_c or c.jpg.",
        ]
    # An image is not its own mask, nor is another image of the same stem.
    touch("data/a.jpg")
    assert planned("data/a.jpg", "data") == [
        "data/a.jpg data/a_mask001.png out/a_mask001.png",
        "data/a.jpg data/a_mask002.png out/a_mask002.png",
    ]


def test_shared_mask_and_no_mask(here):
    touch("images/a.png", "images/b.png", "images/hole.png")
    assert planned("images", "images/hole.png") == [
        "images/a.png images/hole.png out/a.png",
        "images/b.png images/hole.png out/b.png",
    ]
    assert planned("images", None)[2] == "images/hole.png None out/hole.png"
    Path("images/b.png").unlink()
    Path("images/b.png").symlink_to("gone.png")  # Reported when it is read.
    assert planned("images", "images/hole.png")[1] == "images/b.png images/hole.png out/b.png"
    assert planned("images/a.png", "images/hole.png", "x.jpg") == [
        "images/a.png images/hole.png x.jpg"
    ]


def test_duplicate_results_and_unwritable_formats_fail(here):
    touch("images/a.png", "images/a.bmp", "images/b.png", "images/c.webp", "images/d.heic")
    assert planned("images", None) == [
        "images/a.bmp: out/a.png would also be the result of other files; files are matched by "
        "their names without suffix, so rename one of them.",
        "images/a.png: out/a.png would also be the result of other files; files are matched by "
        "their names without suffix, so rename one of them.",
        "images/b.png None out/b.png",
        "images/c.webp None out/c.png",
        "images/d.heic None out/d.png",
    ]
    kept = planned("images", None, keep_format=True)
    assert kept[0] == "images/a.bmp None out/a.bmp"
    assert kept[4] == "images/d.heic: .heic can be read but not written."
    # There are two masks but only one output file.
    touch("masks/b_mask1.png", "masks/b_mask2.png")
    assert [
        "would also be the result" in item for item in planned("images/b.png", "masks", "b.png")
    ] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    "images, masks, output, message",
    [
        ("absent", None, "out", "absent is neither an image file nor a folder of image files"),
        ("empty", None, "out", "empty is neither an image file nor"),
        ("images", "absent", "out", "absent is neither an image file nor"),
        ("images", "empty", "out", "empty is neither an image file nor"),
        (
            "images",
            None,
            "images/a.png",
            "images/a.png has the suffix of a file, but images is a folder",
        ),
        ("images", None, "new.png", "new.png has the suffix of a file, but images is a folder"),
        ("images/a.png", None, "x.avif", ".avif is not a format that can be written"),
        ("images/a.png", None, "x.jp2", ".jp2 is not a format that can be written"),
        (
            "images/a.png",
            None,
            "images/a.png/b.png",
            "images/a.png for the results cannot be created",
        ),
        (
            "images",
            None,
            "masks/../images",
            "is a folder of inputs; choose another folder for the results",
        ),
        (
            "images",
            "masks",
            "masks",
            "masks is a folder of inputs; choose another folder for the results",
        ),
        ("images/a.png", "masks", "images/a.png", "images/a.png is an input; choose another name"),
        ("images/a.png", "masks", "masks/a.png", "masks/a.png is an input; choose another name"),
        ("images", "masks/a.png", "masks", "masks/a.png is an input; choose another name"),
    ],
)
def test_impossible_plans_raise_and_create_nothing(here, images, masks, output, message):
    touch("images/a.png", "masks/a.png")
    Path("empty").mkdir()
    with pytest.raises(UsageError, match=message):
        planned(images, masks, output)
    assert sorted(os.listdir()) == ["empty", "images", "masks"]


def test_shards_partition_the_items():
    items = list(range(37))
    shards = [Shard(index, 16).of(items) for index in range(1, 17)]
    assert shards[2] == [2, 18, 34]
    assert sorted(sum(shards, [])) == items
    assert Shard(1, 1).of(items) == items
    assert Shard(50, 60).of(items) == []


def test_clean_deletes_only_the_files_of_its_jobs(here):
    touch("images/a.png", "images/b.png", "masks/a.png", "out/a.png")
    jobs = plan(Path("images"), Path("masks"), Path("out"))
    touch("out/.other", unfinished_path(jobs[0].result), unfinished_path(Path("out/b.png")))
    clean(jobs)  # The other file may belong to a running shard.
    assert sorted(os.listdir("out")) == sorted(
        [".other", "a.png", unfinished_path(Path("b.png")).name]
    )


# Reading.


@pytest.fixture
def job(here):
    picture, mask = make_picture(7, 5)
    Image.fromarray(picture).save("a.png")
    Image.fromarray(mask).save("a_mask.png")
    return Job(Path("a.png"), Path("a_mask.png"), Path("out/a.png"))


def test_load_applies_the_mask_options(job):
    picture, mask = make_picture(7, 5)
    loaded, hole, *_ = batch.load(job)
    np.testing.assert_array_equal(loaded.pixels, picture)
    np.testing.assert_array_equal(hole[..., 0], mask > 0)
    np.testing.assert_array_equal(batch.load(job, MaskOptions(invert=True))[1], ~hole)
    Image.fromarray(mask // 4).save("a_mask.png")
    with pytest.raises(UsageError, match="a_mask.png has no hole: its values are 0 to 63 of 255"):
        batch.load(job)
    np.testing.assert_array_equal(batch.load(job, MaskOptions(threshold=0.2))[1], hole)
    with pytest.raises(UsageError, match="a.png"):
        batch.load(job, max_pixels=34)


def test_mask_of_another_size_is_rejected_or_resized(job):
    Image.fromarray(np.full((14, 10), 255, np.uint8)).save("a_mask.png")
    with pytest.raises(UsageError, match="a_mask.png is 10x14, but a.png is 5x7 .*, or --resize-m"):
        batch.load(job, MaskOptions(check=False, say_resize=", or --resize-mask"))
    hole = batch.load(job, MaskOptions(check=False, resize=True))[1]
    assert hole.shape == (7, 5, 1) and hole.dtype == bool and hole.all()


def test_transparent_pixels_are_the_hole(job):
    picture = make_picture(1, 4)[0]
    job = job._replace(mask=None)
    alpha = np.array([[0, 127, 128, 255]], np.uint8)
    Image.fromarray(np.dstack([picture, alpha])).save("a.png")
    loaded, hole, *_ = batch.load(job)
    np.testing.assert_array_equal(hole, np.array([[[True], [True], [True], [False]]]))
    np.testing.assert_array_equal(loaded.alpha, 255)
    np.testing.assert_allclose(loaded.kept_share.ravel(), alpha[0] / 255)
    Image.fromarray(picture).save("a.png")
    with pytest.raises(
        UsageError, match="a.png has no transparency that marks a hole; pass --masks"
    ):
        batch.load(job)


# The pipeline.

JOBS = [Job(Path(f"{i}.png"), None, Path(f"out/{i}.png")) for i in range(24)]


def load(job):
    pixels = np.full((2, 3, 3), int(job.image.stem), np.uint8)
    return Inputs(Picture(pixels), np.ones((2, 3, 1), bool))


def fill(picture, mask, sketch):
    return picture.pixels + 100, "crop", 0.25, 1.5


def complete(jobs, load=load, fill=fill, write=None):
    """Returns the outcomes of the jobs, the reported outcomes and the written results."""
    reported, results = [], {}
    write = write or (lambda path, pixels, like: results.update({path: int(pixels[0, 0, 0])}))
    ended = batch.complete(jobs, load=load, fill=fill, write=write, report=reported.append)
    return ended, reported, results


def test_results_do_not_depend_on_timing():
    rng = random.Random(0)

    def slow(work):
        def late(*arguments):
            time.sleep(rng.uniform(0, 0.01))
            return work(*arguments)

        return late

    results = {}
    ended, reported, _ = complete(
        JOBS,
        slow(load),
        fill,
        slow(lambda path, pixels, like: results.update({path: int(pixels[0, 0, 0])})),
    )
    assert results == {job.result: 100 + i for i, job in enumerate(JOBS)}
    assert [end.job for end in ended] == JOBS
    assert sorted(end.job for end in reported) == sorted(JOBS)
    done = Done(JOBS[5], "3x2", 0.253, "crop", 0.25, 1.5, 1.24, ("look at it.",))
    assert ended[5]._replace(seconds=1.24, hole=0.253) == done._replace(warnings=())
    line = "5.png -> out/5.png: 3x2, 25.3 % hole, crop, scale 0.25, 1.5 MP processed, 1.2 s"
    assert f"{done}" == f"{line}\nwarning: look at it."


def test_failures_do_not_stop_the_others():
    def bad_load(job):
        if job == JOBS[1]:
            raise UsageError("1.png cannot be read.")
        return load(job)

    def bad_fill(picture, mask, sketch):
        if picture.pixels[0, 0, 0] == 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand much more")
        if picture.pixels[0, 0, 0] == 3:
            raise MemoryError
        return fill(picture, mask, sketch)

    results = {}

    def bad_write(path, pixels, like):
        if path == JOBS[4].result:
            raise OSError(28, "No space left on device")
        results[path] = pixels

    jobs = [Failure("no mask"), *JOBS[:6]]
    ended, reported, _ = complete(jobs, bad_load, bad_fill, bad_write)
    assert [end.reason for end in ended if isinstance(end, Failure)] == [
        "no mask",
        "1.png cannot be read.",
        "2.png -> out/2.png: RESOURCE_EXHAUSTED: out of memory",
        "3.png -> out/3.png: MemoryError",
        "4.png -> out/4.png: [Errno 28] No space left on device",
    ]
    assert list(results) == [JOBS[0].result, JOBS[5].result]
    assert sorted(map(str, reported)) == sorted(map(str, ended))
    assert f"{ended[0]}" == "failed: no mask"


def test_programming_errors_are_raised():
    def wrong(*_):
        raise TypeError("wrong")

    for stage in ("load", "fill", "write"):
        with pytest.raises(TypeError, match="wrong"):
            complete(JOBS, **{stage: wrong})


def test_completed_images_are_written_after_an_interrupt():
    results = []

    def interrupted(picture, mask, sketch):
        if picture.pixels[0, 0, 0] == 3:
            raise KeyboardInterrupt
        return fill(picture, mask, sketch)

    def slow_write(path, pixels, like):
        time.sleep(0.05)
        results.append(path)

    with pytest.raises(KeyboardInterrupt):
        complete(JOBS, fill=interrupted, write=slow_write)
    assert sorted(results) == [job.result for job in JOBS[:3]]


@pytest.mark.parametrize("slowest", ["load", "fill", "write"])
def test_memory_is_bounded(slowest):
    """At most `IN_MEMORY` images are in memory, whichever stage is slowest."""

    alive, most, lock = 0, 0, threading.RLock()

    def count(change):
        nonlocal alive, most
        with lock:
            alive += change
            most = max(most, alive)

    def paused(stage, result=None):
        time.sleep(0.005 if stage == slowest else 0)
        return result

    def counted_load(job):
        inputs = load(job)
        count(1)
        weakref.finalize(inputs.picture.pixels, count, -1)
        return paused("load", inputs)

    complete(
        JOBS * 3,
        counted_load,
        lambda *arrays: paused("fill", fill(*arrays)),
        lambda path, pixels, like: paused("write"),
    )
    assert 2 < most <= batch.IN_MEMORY
    assert alive == 0


def test_sketches_match_by_mask_name_or_image_name(here):
    touch("in/a.png", "in/b.png", "in/c.png", "masks/a_mask1.png", "masks/a_mask2.png")
    touch("masks/b.png", "masks/c.png", "lines/a.png", "lines/a_mask2.png", "lines/b.png")
    found = plan(Path("in"), Path("masks"), Path("out"), sketches=Path("lines"))
    assert [str(item.sketch) for item in found[:3]] == [
        "lines/a.png",
        "lines/a_mask2.png",
        "lines/b.png",
    ]
    assert found[3].reason == "in/c.png: lines contains no sketch named c."
    one = plan(Path("in"), Path("masks"), Path("out"), sketches=Path("lines/b.png"))
    assert {item.sketch for item in one} == {Path("lines/b.png")}
    with pytest.raises(
        UsageError, match="lines is a folder of inputs; choose another folder for the results"
    ):
        plan(Path("in"), Path("masks"), Path("lines"), sketches=Path("lines"))


def test_sketch_must_have_the_size_of_its_image(job):
    height, width = batch.load(job)[1].shape[:2]
    lines = np.zeros((height, width), np.uint8)
    lines[1] = 200
    Image.fromarray(lines).save("lines.png")
    sketched = job._replace(sketch=Path("lines.png"))
    np.testing.assert_array_equal(batch.load(sketched)[2][..., 0], lines > 0)
    Image.fromarray(lines[:-1]).save("lines.png")
    with pytest.raises(
        UsageError, match="lines.png is .* a sketch must have the size of its image"
    ):
        batch.load(sketched)
