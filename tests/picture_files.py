"""Image files of noise, and a photograph-like image, for the tests of `pictures`."""

import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

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


def photograph():
    """Makes a smooth PIL image, which JPEG compresses well."""
    ramp = np.add.outer(np.arange(48), np.arange(64))[..., np.newaxis]
    return Image.fromarray((ramp * [1, 2, 3] + 20 * np.sin(ramp / 3)).clip(0, 255).astype(np.uint8))
