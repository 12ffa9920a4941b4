"""Tests of writing image files."""

import io
import struct
import warnings
from itertools import product

import numpy as np
import pytest
from picture_files import (
    HEIGHT,
    PROFILE,
    WIDTH,
    noise,
    photograph,
    picture,
    saved,
    whole,
)
from PIL import Image, JpegImagePlugin
from PIL.ExifTags import IFD, Base

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Picture, read, write


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "suffix, dtype, transparent",
    [
        *product(("png", "tif", "tiff", "PNG"), (np.uint8, np.uint16), (False, True)),
        *(("webp", np.uint8, False), ("webp", np.uint8, True), ("bmp", np.uint8, False)),
    ],
)
def test_lossless_formats_preserve_every_bit(tmp_path, suffix, dtype, channels, transparent):
    if dtype == np.uint16 and channels + transparent > 1:
        pytest.importorskip("cv2", minversion="5")
    both = noise(channels + transparent, dtype)
    both[0, :2, -1] = 0, np.iinfo(dtype).max
    like = Picture(both[..., :channels], both[..., channels:] if transparent else None)
    path = tmp_path / f"a.{suffix}"
    write(path, like.pixels, like)
    result = read(path)
    if channels == 1 and (suffix == "webp" or dtype == np.uint16 and transparent):
        both = np.concatenate([both[..., [0] * 3], both[..., 1:]], axis=2)  # As documented.
    assert result.pixels.dtype == dtype
    np.testing.assert_array_equal(whole(result), both)
    before = path.read_bytes()
    write(path, like.pixels, like)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode, quality", [("RGB", 40), ("RGB", 90), ("L", 70)])
def test_jpeg_keeps_its_compression_parameters(tmp_path, mode, quality, subsampling):
    image = photograph().convert(mode)
    path = saved(tmp_path / "a.jpg", image, quality=quality, subsampling=subsampling)
    result = read(path)
    for name in ("b.jpg", "c.JPEG"):
        write(tmp_path / name, result.pixels, result)
    ours, theirs = Image.open(tmp_path / "b.jpg"), Image.open(path)
    assert ours.quantization == theirs.quantization
    assert JpegImagePlugin.get_sampling(ours) == JpegImagePlugin.get_sampling(theirs)
    off = np.abs(read(tmp_path / "b.jpg").pixels.astype(int) - result.pixels)
    assert off.mean() < 0.5
    assert (tmp_path / "b.jpg").read_bytes() == (tmp_path / "c.JPEG").read_bytes()


def test_other_formats_become_jpeg_of_high_quality(tmp_path):
    result = read(photograph())
    write(tmp_path / "a.jpg", result.pixels, result)
    written = Image.open(tmp_path / "a.jpg")
    assert JpegImagePlugin.get_sampling(written) == 0
    photograph().save(tmp_path / "b.jpg", quality=95)
    assert written.quantization == Image.open(tmp_path / "b.jpg").quantization


def test_first_image_of_an_mpo_file_is_read(tmp_path):
    two = {"save_all": True, "append_images": [photograph().rotate(180)]}
    path = tmp_path / "a.jpg"
    photograph().save(path, "MPO", **two)
    photograph().save(tmp_path / "b.jpg")
    result = read(path)
    np.testing.assert_array_equal(result.pixels, read(tmp_path / "b.jpg").pixels)
    write(tmp_path / "c.jpg", result.pixels, result)
    assert Image.open(tmp_path / "c.jpg").format == "JPEG"
    assert Image.open(tmp_path / "c.jpg").quantization == Image.open(path).quantization


def exif_of_a_camera():
    exif = Image.Exif()
    exif.update({Base.Make: "Maker", Base.Copyright: "Mine", Base.Orientation: 3})
    exif[IFD.Exif] = {
        Base.DateTimeOriginal: "2020:01:02 03:04:05",
        Base.MakerNote: b"a preview of what was in the hole",
        Base.ExifImageWidth: 99,
    }
    exif[IFD.GPSInfo] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return exif


SOURCES = [("jpg", {}), ("png", {}), ("tif", {}), ("webp", {"lossless": True})]


@pytest.mark.parametrize("target", ["a.jpg", "a.png", "a.tif", "a.webp", "16.png", "16.tif"])
@pytest.mark.parametrize("source, options", SOURCES)
def test_metadata_are_kept(tmp_path, source, options, target):
    path = tmp_path / f"source.{source}"
    photograph().save(
        path, exif=exif_of_a_camera().tobytes(), dpi=(300, 200), icc_profile=PROFILE, **options
    )
    like = read(path)
    if target.startswith("16"):
        pytest.importorskip("cv2", minversion="5")
        like = Picture(like.pixels.astype(np.uint16) * 257, metadata=like.metadata)
    write(tmp_path / target, like.pixels, like)
    written = Image.open(tmp_path / target)
    assert written.info["icc_profile"] == PROFILE
    exif = written.getexif()
    kept = {Base.Make: "Maker", Base.Copyright: "Mine"}
    assert {tag: exif.get(tag) for tag in kept} == kept
    # A JPEG that is written as JPEG keeps its stored orientation.
    assert exif.get(Base.Orientation) == (3 if (source, target) == ("jpg", "a.jpg") else None)
    assert dict(exif.get_ifd(IFD.Exif)) == {Base.DateTimeOriginal: "2020:01:02 03:04:05"}
    assert dict(exif.get_ifd(IFD.GPSInfo)) == {1: "N", 2: (1.0, 2.0, 3.0)}
    if not {source, target} & {"webp", "a.webp"}:
        assert [round(float(x)) for x in written.info["dpi"]] == [300, 200]
    assert b"eXIfExif" not in (tmp_path / target).read_bytes()  # PNG's begins with the TIFF.
    if not target.endswith("jpg"):
        np.testing.assert_array_equal(read(tmp_path / target).pixels, like.pixels)


def test_thumbnails_are_not_kept(tmp_path):
    # IFD 0 with a maker, and IFD 1 with a JPEG, as cameras write.
    shown = io.BytesIO()
    photograph().save(shown, "JPEG")
    maker = struct.pack("<HHHI4sI", 1, 0x10F, 2, 4, b"Abc\0", 26)
    offset = struct.pack("<HHHIIHHIII", 2, 0x201, 4, 1, 56, 0x202, 4, 1, len(shown.getvalue()), 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + maker + offset + shown.getvalue()
    photograph().save(tmp_path / "a.jpg", exif=exif)
    assert len(Image.open(tmp_path / "a.jpg").getexif().get_ifd(IFD.IFD1)) == 2
    like = read(tmp_path / "a.jpg")
    write(tmp_path / "b.jpg", like.pixels, like)
    written = Image.open(tmp_path / "b.jpg").getexif()
    assert dict(written) == {Base.Make: "Abc"} and not written.get_ifd(IFD.IFD1)


def test_corrupt_metadata_are_dropped_silently(tmp_path, capfd):
    exif = exif_of_a_camera().tobytes()
    ratio = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIIIII", 1, Base.Make, 5, 1, 26, 0, 1, 2)
    cut = exif[:20] + b"\xff" * 40 + exif[60:]
    for spoilt in (exif[:30], cut, b"Exif\0\0nonsense", ratio):
        photograph().save(tmp_path / "a.jpg", exif=spoilt, dpi=(300, 200))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            like = read(tmp_path / "a.jpg")
            write(tmp_path / "b.jpg", like.pixels, like)
        assert Image.open(tmp_path / "b.jpg").info["dpi"] == (300, 200)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "mode, target, problem",
    [
        ("RGBA", "a.jpg", "JPEG cannot hold transparency; use .png"),
        ("RGBA", "a.bmp", "BMP cannot hold transparency; use .png"),
        ("I;16", "a.jpg", "JPEG cannot hold 16 bits per channel; use .png"),
        ("I;16", "a.webp", "WEBP cannot hold 16 bits per channel; use .png"),
        ("RGB", "a.gif", ".gif is not a supported format; use .png"),
        ("RGB", "a", "its name has no suffix; use .png"),
        ("RGB", "absent/a.png", "No such file or directory"),
        ("RGB", "folder.png", "Is a directory"),
    ],
)
def test_unwritable_formats_are_named_and_leave_no_file(tmp_path, mode, target, problem):
    (tmp_path / "folder.png").mkdir()
    like = read(picture(mode))
    with pytest.raises(UsageError, match=f"{target} cannot be written: {problem}"):
        write(tmp_path / target, like.pixels, like)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_mismatched_profiles_and_pixels_are_refused(tmp_path):
    profiled = Picture(noise(3), metadata={"icc_profile": PROFILE})
    with pytest.raises(UsageError, match="BMP cannot hold a color profile"):
        write(tmp_path / "a.bmp", profiled.pixels, profiled)
    with pytest.raises(UsageError, match="a.webp cannot be written: .*16383"):
        strip = Picture(np.zeros((1, 20000, 3), np.uint8))
        write(tmp_path / "a.webp", strip.pixels, strip)
    for other in (noise(1), noise(3, np.uint16), noise(3)[1:]):
        with pytest.raises(
            UsageError, match=r"needs pixels of uint8 \(6, 10, 3\), like the input image, not "
        ):
            write(tmp_path / "a.png", other, profiled)
    assert not list(tmp_path.iterdir())


def test_opaque_alpha_may_be_dropped(tmp_path):
    opaque = Picture(noise(3), np.full((HEIGHT, WIDTH, 1), 255, np.uint8))
    write(tmp_path / "a.bmp", opaque.pixels, opaque)
    np.testing.assert_array_equal(whole(read(tmp_path / "a.bmp")), opaque.pixels)


def test_files_are_replaced_atomically(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("precious")
    like = read(picture("RGB"))
    full = OSError(28, "No space left on device")

    def half(self, data):
        self.open("wb").write(data[:10])
        raise full

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", half)
        with pytest.raises(UsageError, match="a.png cannot be written: No space left on device"):
            write(path, like.pixels, like)
    assert path.read_text() == "precious" and list(tmp_path.iterdir()) == [path]
    write(path, like.pixels, like)
    np.testing.assert_array_equal(read(path).pixels, like.pixels)
