"""Matching of masks to images by file name."""

from pathlib import Path

import pytest
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import mask_names
from deepfill_jax.inpaint.pairing import pair
from deepfill_jax.inpaint.plan import Failure, plan


@pytest.mark.parametrize(
    "name",
    "photo.png photo.jpg.png photo_mask.png photo_mask1.png photo_mask_000.png photo-mask.png "
    "photo-mask-01.png mask_photo.png mask-photo.png Mask_photo.png photo.mask.png "
    "photo_MASK.png photo.jpg_mask.png mask_photo.jpg.png".split()
    + ["photo mask (2).png"],
)
def test_mask_names_of_common_tools_match(name):
    images = [Path("images/photo.jpg"), Path("images/photo2.jpg"), Path("images/other.png")]
    found = mask_names.match([Path("masks") / name], images)
    assert found == {images[0]: [Path("masks") / name]}


@pytest.mark.parametrize("name", ["photomask.png", "photo_masks.png", "photo_1.png", "mask.png"])
def test_other_names_do_not_match(name):
    assert not mask_names.match([Path(name)], [Path("photo.jpg")])


def test_full_names_distinguish_images_of_one_stem():
    images = [Path("a.jpg"), Path("a.png")]
    assert mask_names.match([Path("m/a.jpg.png")], images) == {images[0]: [Path("m/a.jpg.png")]}


def test_masks_among_the_images_are_recognised_by_name():
    files = [Path(x) for x in ("a.jpg", "a.jpg.png", "b.jpg", "b-mask.png", "mask_b.png", "c.png")]
    assert mask_names.marked_as_masks(files) == [files[1], files[3], files[4]]


def test_accents_match_in_either_form_of_unicode():
    apart, composed = Path("e\u0301.jpg"), Path("m/\u00e9_mask.png")  # Both look like \u00e9.
    assert mask_names.match([composed], [apart]) == {apart: [composed]}
    assert mask_names.marked_as_masks([apart, composed]) == [composed]


def test_error_lists_masks_without_an_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("images/a.png", "images/b.png", "masks/a-mask.png", "masks/x.png", "masks/y.png"):
        Path(path).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(path)
    images, masks = Path("images"), Path("masks")
    job, failure = plan(images, masks, Path("out"))
    assert job.mask == masks / "a-mask.png" and isinstance(failure, Failure)
    assert failure.reason == (
        "images/b.png: masks contains no mask named b, b_mask, b-mask, mask_b or b.png; masks "
        "without an image: masks/x.png, masks/y.png."
    )
    assert pair(images, masks).rest == [masks / "x.png", masks / "y.png"]
    assert not pair(images, None).rest and not pair(images, images).rest
    with pytest.raises(UsageError, match="x.gif cannot be written: .gif is not a format"):
        plan(images / "a.png", masks, Path("x.gif"))
    assert not Path("x.gif").exists()
