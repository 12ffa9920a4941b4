"""Tests of image files that are refused."""

import struct
import warnings
import zlib

import pytest
from made import truncate
from picture_files import picture, saved
from PIL import Image, TiffImagePlugin
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import read


def bomb(width, height):
    """Makes the start of a PNG file with a large image."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b""
    for kind, content in [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100)))]:
        check = struct.pack(">I", zlib.crc32(kind + content))
        data += struct.pack(">I", len(content)) + kind + content + check
    return b"\x89PNG\r\n\x1a\n" + data


def test_large_images_are_refused_before_they_are_decoded(tmp_path, capfd, monkeypatch):
    path = tmp_path / "a.png"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1234)  # The limit that the caller has set.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for width, height in [(11000, 11000), (100000, 90000), (2**31 - 1, 1)]:
            path.write_bytes(bomb(width, height))
            match = (
                f"a.png has {width}x{height} pixels .* the limit of 120,000,000; make it smaller"
            )
            with pytest.raises(UsageError, match=match):
                read(path)
        with pytest.raises(UsageError, match="6x10 pixels .* limit of 59"):
            read(saved(path, picture("L").rotate(90, expand=True)), max_pixels=59)
        assert read(path, max_pixels=60).pixels.size == 60
        with pytest.raises(UsageError, match="The image has 10x6 pixels .* limit of 59"):
            read(picture("L"), max_pixels=59)
        # This size is above Pillow's limit for warnings and below ours, so there is no warning.
        path.write_bytes(bomb(10000, 10000))
        with pytest.raises(UsageError, match="cannot be read as an image: image file is trunc"):
            read(path)
    assert Image.MAX_IMAGE_PIXELS == 1234
    assert capfd.readouterr() == ("", "")


def test_small_tiff_with_large_tiles_is_refused(tmp_path):
    directory = ImageFileDirectory_v2()
    directory[Base.ImageWidth], directory[Base.ImageLength] = 16, 16
    directory[Base.TileWidth], directory[Base.TileLength] = 11008, 11008
    directory[Base.TileOffsets], directory[Base.TileByteCounts] = 8, 100
    directory[Base.BitsPerSample], directory[Base.Compression] = 8, 1
    directory[Base.PhotometricInterpretation], directory[Base.SamplesPerPixel] = 1, 1
    with (tmp_path / "a.tif").open("wb") as file:
        directory.save(file)
    with pytest.raises(UsageError, match="a.tif has 11008x11008 pixels"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_animations_and_pages_are_refused(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(UsageError, match=f"a.{suffix} holds several frames or pages; save the"):
        read(tmp_path / f"a.{suffix}")


def test_pages_are_not_counted(tmp_path, monkeypatch):
    """Pillow reads all pages of a TIFF to count them: 18 s for a file of 4 MB."""
    pages = [Image.new("L", (1, 1)) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])

    def count(opened):
        raise AssertionError("The pages were counted.")

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "n_frames", property(count))
    with pytest.raises(UsageError, match="several frames or pages"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_truncated_files_are_named(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", picture("RGB").resize((40, 40)))
    truncate(path)
    with pytest.raises(UsageError, match=f"a.{suffix} cannot be read as an image: "):
        read(path)
    path.write_bytes(path.read_bytes()[:16])
    with pytest.raises(UsageError, match=f"a.{suffix} cannot be read as an image: "):
        read(path)


def test_files_that_are_not_images_are_named(tmp_path):
    (tmp_path / "text.png").write_text("hello" * 10)
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name, problem in [
        ("text.png", "it is not a JPEG, PNG, .* or HEIC"),
        ("script.eps", "it is not a JPEG"),
        ("empty.png", "it is empty"),
        ("folder.png", "Is a directory"),
        ("absent.png", "No such file or directory"),
        ("null\0.png", "embedded null byte"),
    ]:
        with pytest.raises(UsageError, match=f"{name} cannot be read as an image: {problem}"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "mode, problem", [("F", "float32 values"), ("I", "int32 values"), ("LAB", "color mode LAB")]
)
def test_unsupported_modes_are_refused(tmp_path, mode, problem):
    path = saved(tmp_path / "a.tif", picture(mode))
    with pytest.raises(UsageError, match=f"a.tif .*{problem}"):
        read(path)
