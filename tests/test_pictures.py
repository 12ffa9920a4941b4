"""Tests of reading image files."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from picture_files import (
    HEIGHT,
    PROFILE,
    WIDTH,
    noise,
    picture,
    png_of_16_bits,
    saved,
    whole,
)
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Encoded, Picture, encode, read, size, split_hole, write


@pytest.mark.parametrize(
    "mode, suffix",
    [
        *((mode, suffix) for suffix in ("png", "tif") for mode in ("L", "LA", "RGB", "RGBA")),
        *(("RGB", "webp"), ("RGBA", "webp"), ("L", "bmp"), ("RGB", "bmp")),
    ],
)
def test_lossless_files_are_read_exactly(tmp_path, mode, suffix):
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", picture(mode), **options)
    result = read(path)
    np.testing.assert_array_equal(whole(result), noise(len(mode)))
    assert (result.alpha is not None) == mode.endswith("A")
    np.testing.assert_array_equal(whole(read(str(path))), noise(len(mode)))
    np.testing.assert_array_equal(whole(read(Image.open(path))), noise(len(mode)))


@pytest.mark.parametrize(
    "mode, suffix, options, shown",
    [
        ("1", "png", {}, "L"),
        ("1", "png", {"transparency": 1}, "LA"),
        ("1", "bmp", {}, "L"),
        ("L", "png", {"transparency": 5}, "LA"),
        ("L", "gif", {}, "RGB"),
        ("P", "png", {}, "RGB"),
        ("P", "png", {"transparency": 3}, "RGBA"),
        ("P", "gif", {"transparency": 3}, "RGBA"),
        ("P", "tif", {}, "RGB"),
        ("RGB", "png", {"transparency": (1, 2, 3)}, "RGBA"),
        # Pillow 12 cannot read its own uncompressed files.
        ("YCbCr", "tif", {"compression": "tiff_lzw"}, "RGB"),
        ("CMYK", "jpg", {}, "RGB"),
        ("CMYK", "tif", {}, "RGB"),
    ],
)
def test_other_modes_are_converted_like_in_pillow(tmp_path, mode, suffix, options, shown):
    path = saved(tmp_path / f"a.{suffix}", picture(mode), **options)
    expected = np.asarray(Image.open(path).convert(shown)).reshape(HEIGHT, WIDTH, len(shown))
    result = read(path)
    np.testing.assert_array_equal(whole(result), expected)
    assert (result.alpha is not None) == shown.endswith("A")


def profile_of_grey_inks():
    """Makes a CMYK profile: paper is white, every ink is Lab (50, 0, 0), and K is black."""
    straight = bytes(range(256))
    lightness = [255, *[0, 128] * 7, 0]  # K changes fastest.
    colours = b"".join(bytes([x, 128, 128]) for x in lightness)
    table = struct.pack(">4s4xBBBx9i", b"mft1", 4, 3, 2, *(65536 * np.eye(3, dtype=int)).flat)
    table += straight * 4 + colours + straight * 3
    head = struct.pack(">4xII4s4s4s12x4s", 0, 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    head = head[4:].ljust(64, b"\0") + struct.pack(">I3i", 0, 63190, 65536, 54061)
    head = head.ljust(124, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    return struct.pack(">I", 4 + len(head) + len(table)) + head + table


def test_cmyk_is_converted_by_its_profile(tmp_path):
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    image, path = Image.fromarray(inks, "CMYK"), tmp_path / "a.tif"
    result = read(saved(path, image, icc_profile=profile_of_grey_inks()))
    grey = 119  # Lab (50, 0, 0) in sRGB.
    expected = np.array([[[255] * 3, [grey] * 3, [0] * 3]])
    np.testing.assert_allclose(result.pixels, expected, atol=2)
    assert "icc_profile" not in result.metadata
    # Profiles of other color spaces are ignored.
    for useless in (PROFILE, b"nonsense"):
        result = read(saved(path, image, icc_profile=useless))
        np.testing.assert_array_equal(result.pixels, image.convert("RGB"))
        assert "icc_profile" not in result.metadata
    assert not read(saved(tmp_path / "a.jpg", image)).jpeg


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_preserved(tmp_path, suffix):
    result = read(saved(tmp_path / f"a.{suffix}", picture("I;16")))
    assert result.pixels.dtype == np.uint16
    np.testing.assert_array_equal(result.pixels, noise(1, np.uint16))


@pytest.mark.parametrize("colour, channels", [(2, 3), (6, 4)])
def test_16_bit_colours_are_preserved(tmp_path, colour, channels):
    pytest.importorskip("cv2", minversion="5")
    expected = noise(channels, np.uint16)
    result = read(png_of_16_bits(tmp_path / "a.png", expected, colour))
    assert result.pixels.dtype == np.uint16
    np.testing.assert_array_equal(whole(result), expected)
    # TIFF: a second library's file.
    tifffile = pytest.importorskip("tifffile")
    kind = {"photometric": "rgb", "extrasamples": ["unassalpha"] * (channels - 3)}
    for order in "<>":
        tifffile.imwrite(tmp_path / "a.tif", expected, byteorder=order, **kind)
        np.testing.assert_array_equal(whole(read(tmp_path / "a.tif")), expected)
    write(tmp_path / "b.tif", result.pixels, result)
    # Pillow has already dropped the lower 8 bits of a PIL image.
    np.testing.assert_array_equal(whole(read(Image.open(tmp_path / "b.tif"))), expected >> 8)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        np.testing.assert_array_equal(file.asarray(), expected)
        extra = file.pages[0].extrasamples
        assert [x.name for x in extra] == ["UNASSALPHA"] * (channels - 3)


def test_16_bit_grey_with_alpha_becomes_rgb(tmp_path):
    pytest.importorskip("cv2", minversion="5")
    both = noise(2, np.uint16)
    result = read(png_of_16_bits(tmp_path / "a.png", both, 4))
    np.testing.assert_array_equal(whole(result), both[..., [0, 0, 0, 1]])
    grey = Picture(both[..., :1], both[..., 1:])
    for name in ("b.png", "b.tif"):
        write(tmp_path / name, grey.pixels, grey)
        np.testing.assert_array_equal(whole(read(tmp_path / name)), both[..., [0, 0, 0, 1]])


def test_files_on_which_two_decoders_disagree_are_refused(tmp_path):
    pytest.importorskip("cv2", minversion="5")
    tifffile = pytest.importorskip("tifffile")
    path, rgb = tmp_path / "a.tif", {"photometric": "rgb"}
    planes = np.moveaxis(noise(3, np.uint16), 2, 0)
    tifffile.imwrite(path, planes, planarconfig="separate", **rgb)
    with pytest.raises(
        UsageError, match="a.tif has 16 bits per channel in an unsupported encoding"
    ):
        read(path)
    tifffile.imwrite(path, noise(4, np.uint16), extrasamples=["assocalpha"], **rgb)
    with pytest.raises(
        UsageError, match="16 bits per channel in an unsupported encoding .TIFF, RGBA"
    ):
        read(path)
    tifffile.imwrite(path, noise(1, np.uint16)[..., 0], photometric="miniswhite")
    with pytest.raises(UsageError, match="a.tif has 16 bits in an unsupported encoding"):
        read(path)


def test_missing_extra_is_named(tmp_path, monkeypatch):
    wide = png_of_16_bits(tmp_path / "wide.png", noise(3, np.uint16), 2)
    heic = tmp_path / "phone.jpg"  # The content determines the format, not the suffix.
    heic.write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(100))
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UsageError, match=r"wide.png has 16 .* OpenCV.*deepfill_jax\[pictures\]"):
        read(wide)
    with pytest.raises(UsageError, match=r"phone.jpg is a HEIC .*deepfill_jax\[pictures\]"):
        read(heic)
    sixteen = Picture(noise(3, np.uint16))
    with pytest.raises(UsageError, match=r"a.png has 16 .* OpenCV.*deepfill_jax\[pictures\]"):
        write(tmp_path / "a.png", sixteen.pixels, sixteen)


def test_heic_images_are_read(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif.update({Base.Make: "Phone", Base.Orientation: 6})
    smooth = Image.linear_gradient("L").resize((32, 16)).convert("RGB")
    heif.from_pillow(smooth).save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    result = read(tmp_path / "a.heic")
    assert result.pixels.shape == (32, 16, 3)
    np.testing.assert_allclose(result.pixels, np.rot90(smooth, -1).astype(int), atol=6)
    write(tmp_path / "b.jpg", result.pixels, result)
    assert dict(Image.open(tmp_path / "b.jpg").getexif()) == {Base.Make: "Phone"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_images_are_turned_upright(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[Base.Orientation] = orientation
        picture("RGB").save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
        for source in (path, Image.open(path)):
            np.testing.assert_array_equal(read(source).pixels, expected)
        write(path, read(path).pixels, read(path))
        # A JPEG keeps its stored orientation, see
        # `test_metadata.test_rotated_jpeg_loses_as_little_as_an_upright_one`.
        kept = orientation if suffix == "jpg" else 1
        assert Image.open(path).getexif().get(Base.Orientation, 1) == kept


def test_16_bit_colours_are_turned_upright(tmp_path):
    pytest.importorskip("cv2", minversion="5")
    tifffile = pytest.importorskip("tifffile")
    rgba = noise(4, np.uint16)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[Base.Orientation] = orientation
        expected = np.asarray(ImageOps.exif_transpose(with_exif(picture("L"), exif)))
        block = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        result = read(png_of_16_bits(tmp_path / "a.png", rgba, 6, [block]))
        assert whole(result).shape[:2] == expected.shape
        grey = png_of_16_bits(tmp_path / "b.png", noise(1)[..., [0, 0, 0]], 2, [block])
        np.testing.assert_array_equal(read(grey).pixels[..., 0], expected)
        tag = (Base.Orientation, "H", 1, orientation, True)
        tifffile.imwrite(tmp_path / "a.tif", rgba[..., :3], photometric="rgb", extratags=[tag])
        np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, result.pixels)


def with_exif(image, exif):
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    return Image.open(file)


def test_first_image_of_a_process_is_read(tmp_path):
    path = saved(tmp_path / "a.png", picture("RGB"))
    code = f"from deepfill_jax.pictures import read; assert read({str(path)!r}).pixels.size == 180"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_files_in_memory_are_read(tmp_path):
    path = tmp_path / "a.png"
    picture("RGBA").save(path)
    data = path.read_bytes()
    there, here = read(path), read(Encoded(data, "mine.png"))
    np.testing.assert_array_equal(here.pixels, there.pixels)
    np.testing.assert_array_equal(here.alpha, there.alpha)
    write(path, there.pixels, there)
    assert encode("any.png", here.pixels, here) == path.read_bytes()
    with pytest.raises(UsageError, match="^mine.png cannot be read as an image: "):
        read(Encoded(data[:-60], "mine.png"))
    with pytest.raises(UsageError, match="^The image cannot be read as an image: it is empty"):
        read(Encoded(b""))
    with pytest.raises(
        UsageError, match="^any.gif cannot be written: .gif is not a supported format"
    ):
        encode("any.gif", here.pixels, here)


def test_transparent_hole_becomes_opaque():
    for highest in (255, 200):  # The highest alpha may be below 255.
        alpha = np.array([[0, 51, highest]], np.uint8)[..., np.newaxis]
        opaque, hole = split_hole(Picture(np.zeros((1, 3, 3), np.uint8), alpha))
        assert hole[..., 0].tolist() == [[True, True, False]]
        assert opaque.alpha[..., 0].tolist() == [[highest] * 3]
        np.testing.assert_allclose(opaque.kept_share[0, :, 0], [0, 51 / highest, 1])


def test_size_is_width_x_height():
    assert size(np.zeros((2, 3, 1))) == "3x2"


def test_tiff_with_a_long_strip_is_read(tmp_path):
    strip = np.arange(65000, dtype=np.uint32).astype(np.uint8).reshape(1, -1, 1)
    write(tmp_path / "a.png", strip, Picture(strip))
    np.testing.assert_array_equal(read(tmp_path / "a.png").pixels, strip)
