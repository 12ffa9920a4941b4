"""Damaged image files, and numbers of other ranges: refused for inpainting and for training."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Encoded, read, rgb

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def encoded(kind, pixels=PIXELS, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def refused(data, path, reason):
    """Asserts that both readers refuse a file."""
    with pytest.raises(UsageError, match=f"a.x cannot be read as an image: {reason}"):
        read(Encoded(data, "a.x"))
    with pytest.raises(rgb.UnreadableImageError, match=reason):
        rgb.decode(data)
    path.write_bytes(data)
    with pytest.raises(rgb.UnreadableImageError, match=reason):
        rgb.check(path)


@pytest.mark.parametrize("options", [{"compress_level": 0}, {"compress_level": 6}])
def test_zeros_in_a_png_are_noticed(tmp_path, options):
    data = encoded("PNG", **options)
    for start in range(60, len(data) - 40, len(data) // 20):
        damaged = data[:start] + bytes(30) + data[start + 30 :]
        if damaged != data:
            refused(damaged, tmp_path / "a.x", "it is damaged, a checksum is wrong")


def test_pngs_without_their_end_are_noticed(tmp_path):
    data = encoded("PNG")
    for cut in (4, 12, 14, 20, 60):
        refused(data[:-cut], tmp_path / "a.x", "it is damaged")


def test_broken_streams_of_a_png_are_noticed():
    """The checksum is right, as that of a file which was written so."""
    data = encoded("PNG")
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start])
    content = data[start + 4 : start + 104] + bytes(40) + data[start + 144 : start + 4 + length]
    checksum = zlib.crc32(b"IDAT" + content).to_bytes(4)
    broken = data[: start + 4] + content + checksum + data[start + 8 + length :]
    for source in (Encoded(broken, "a.x"), Image.open(io.BytesIO(broken))):
        with pytest.raises(UsageError, match="cannot be read as an image: broken data stream"):
            read(source)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpegs_that_end_in_zeros_are_noticed(tmp_path, options):
    thumbnail = encoded("JPEG", PIXELS[:8, :8])  # Has an end of its own.
    exif = b"Exif\0\0" + thumbnail
    data = encoded("JPEG", exif=exif, **options)
    for share in (0.5, 0.9):
        kept = int(share * len(data))
        zeros = data[:kept] + bytes(len(data) - kept)
        with pytest.raises(UsageError, match="its end is missing|truncated"):
            read(Encoded(zeros, "a.x"))
        (tmp_path / "a.x").write_bytes(zeros)
        with pytest.raises(rgb.UnreadableImageError):
            rgb.check(tmp_path / "a.x")
    refused(data[:-2] + bytes(2), tmp_path / "a.x", "it is damaged, its end is missing")


def test_bytes_behind_the_image_are_no_damage():
    for kind in ("PNG", "JPEG"):
        data = encoded(kind)
        for more in (bytes(99), b"\xff\xda" + bytes(99)):  # Phones append videos.
            np.testing.assert_array_equal(read(data + more).pixels, read(data).pixels)
            np.testing.assert_array_equal(rgb.decode(data + more), rgb.decode(data))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_training_refuses_numbers_of_unknown_range(tmp_path, dtype):
    data = encoded("TIFF", PIXELS[..., 0].astype(dtype))
    with pytest.raises(rgb.UnreadableImageError, match="unknown range"):
        rgb.decode(data)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(rgb.UnreadableImageError, match="unknown range"):
        rgb.check(tmp_path / "a.tif")


def test_signed_values_are_not_read_as_unsigned():
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS[..., 0].view(np.int8))
    with pytest.raises(UsageError, match="a.tif holds signed values; save it with unsigned ones"):
        read(Encoded(file.getvalue(), "a.tif"))
    with pytest.raises(rgb.UnreadableImageError, match="unknown range"):
        rgb.decode(file.getvalue())
