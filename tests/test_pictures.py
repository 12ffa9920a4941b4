"""Tests of reading and writing image files."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from itertools import product

import numpy as np
import pytest
from made import truncate
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin, TiffImagePlugin
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Encoded, Picture, encode, read, size, split_hole, write

HEIGHT, WIDTH = 6, 10
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(channels, dtype=np.uint8):
    rng = np.random.default_rng(channels)
    return rng.integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, channels)).astype(dtype)


def picture(mode):
    """Makes a PIL image of noise."""
    if mode == "I;16":
        return Image.fromarray(noise(1, np.uint16)[..., 0])
    if mode in ("L", "LA", "RGB", "RGBA"):
        return Image.fromarray(noise(len(mode)).squeeze())
    if mode == "P":
        return picture("RGB").quantize(16)
    if mode == "F":
        return Image.fromarray(noise(1).astype(np.float32)[..., 0])
    return picture("RGB").convert(mode)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def whole(result):
    """Joins the pixels and alpha of an image."""
    both = [x for x in (result.pixels, result.alpha) if x is not None]
    assert len({x.dtype for x in both}) == 1
    return np.concatenate(both, axis=2)


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


def png_of_16_bits(path, pixels, colour, chunks=()):
    """Writes a PNG by hand: `colour` is 2 for RGB, 4 for grey and alpha, 6 for RGBA."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in [
            (b"IHDR", head),
            *chunks,
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]:
            check = struct.pack(">I", zlib.crc32(kind + data))
            file.write(struct.pack(">I", len(data)) + kind + data + check)
    return path


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


# --- Writing


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


def photograph():
    """Makes a smooth PIL image, which JPEG compresses well."""
    ramp = np.add.outer(np.arange(48), np.arange(64))[..., np.newaxis]
    return Image.fromarray((ramp * [1, 2, 3] + 20 * np.sin(ramp / 3)).clip(0, 255).astype(np.uint8))


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


# --- Refusals


def bomb(width, height):
    """Makes a PNG file with a large image, of whose pixels it holds a few."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b""
    for kind, content in [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]:
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


def test_tiff_with_a_long_strip_is_read(tmp_path):
    strip = np.arange(65000, dtype=np.uint32).astype(np.uint8).reshape(1, -1, 1)
    write(tmp_path / "a.png", strip, Picture(strip))
    np.testing.assert_array_equal(read(tmp_path / "a.png").pixels, strip)


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
