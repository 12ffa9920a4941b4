"""Makes a folder of the image files that people have, and what the folder command says of each.

python tests/odd_files.py FOLDER
"""

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin
from PIL.ExifTags import Base

SIDE = 24
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta><rdf:Description dc:title="A"/></x:xmpmeta>'


def _smooth(mode="RGB"):
    y, x = np.mgrid[:SIDE, :SIDE]
    rgb = np.dstack([x * 10, y * 10, 255 - x * 5]).astype(np.uint8)
    image = Image.fromarray(rgb)
    if mode == "RGBA":  # A soft edge.
        image.putalpha(Image.fromarray(np.clip(x * 20, 0, 255).astype(np.uint8)))
        return image
    if mode == "I;16":
        return Image.fromarray((x * 2000).astype(np.uint16))
    return image.convert(mode)


def _exif(tags):
    exif = Image.Exif()
    exif.update({Base.Make: "Phone"} | tags)
    return exif


def _png_text(texts):
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    info.add(b"gAMA", struct.pack(">I", 45455))
    return info


def _bomb():
    data = bytearray(_bytes("PNG"))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def _bytes(kind, mode="RGB", **options):
    file = io.BytesIO()
    _smooth(mode).save(file, kind, **options)
    return file.getvalue()


def _changed(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


def _frames(kind, **options):
    others = [Image.new("RGB", (SIDE, SIDE), color) for color in ("red", "blue")]
    return _bytes(kind, save_all=True, append_images=others, **options)


def _tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def _bands(count, dtype=np.uint8):
    bands = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, count)).astype(dtype)
    return bands * (np.iinfo(dtype).max // 255)


def _wide_png(channels):
    return cv2.imencode(".png", _bands(channels, np.uint16))[1].tobytes()


GOOD = "24x24, 11.1 % hole, crop"  # The line ends with this, but for the time.
PAGES = "holds several frames or pages"
BANDS = "bands, of which the file declares 3 as color"
UNREADABLE = "cannot be read as an image"
DAMAGED = f"{UNREADABLE}: it is damaged"
TWIN = "would also be the result of other files"
NAN = np.full((SIDE, SIDE), np.nan, np.float32)

# Each file's content, and a part of the message for it; messages list metadata that is not copied.
FILES = {
    # Names.
    "plain.png": (_bytes("PNG"), GOOD),
    "UPPER.PNG": (_bytes("PNG"), GOOD),
    "two words.png": (_bytes("PNG"), GOOD),
    "dots.v1.2.png": (_bytes("PNG"), GOOD),
    "\u65e5\u672c.png": (_bytes("PNG"), GOOD),
    "e\u0301.png": (_bytes("PNG"), GOOD),
    "[x]{y}%s.png": (_bytes("PNG"), GOOD),
    "-dash.png": (_bytes("PNG"), GOOD),
    os.fsdecode(b"latin\xe9.png"): (_bytes("PNG"), GOOD),
    "new\nline.png": (_bytes("PNG"), GOOD),
    "esc\x1b[31m.png": (_bytes("PNG"), GOOD),
    "long" * 55 + ".png": (_bytes("PNG"), GOOD),
    # Suffixes and contents.
    "a.jpeg": (_bytes("JPEG"), GOOD),
    "b.jfif": (_bytes("JPEG"), GOOD),
    "c.jpe": (_bytes("JPEG"), GOOD),
    "d.JPG": (_bytes("JPEG"), GOOD),
    "jpeg called.png": (_bytes("JPEG"), GOOD),
    "png called.jpg": (_bytes("PNG"), GOOD),
    "webp called.bmp": (_bytes("WEBP"), GOOD),
    "no suffix": (_bytes("PNG"), GOOD),
    "odd.dat": (_bytes("TIFF"), GOOD),
    "f.webp": (_bytes("WEBP"), GOOD),
    "g.bmp": (_bytes("BMP"), GOOD),
    "h.tiff": (_bytes("TIFF"), GOOD),
    "i.gif": (_bytes("GIF", "P"), GOOD),
    "j.dib": (_bytes("BMP"), GOOD),
    "twin.png": (_bytes("PNG"), TWIN),
    "twin.bmp": (_bytes("BMP"), TWIN),
    # Modes.
    "gray.png": (_bytes("PNG", "L"), GOOD),
    "one bit.png": (_bytes("PNG", "1"), GOOD),
    "palette.png": (_bytes("PNG", "P"), GOOD),
    "palette see-through.png": (_bytes("PNG", "P", transparency=3), GOOD),
    "rgba.png": (_bytes("PNG", "RGBA"), GOOD),
    "la.png": (_bytes("PNG", "LA"), GOOD),
    "cmyk.jpg": (_bytes("JPEG", "CMYK"), GOOD),
    "cmyk b.tif": (_bytes("TIFF", "CMYK"), GOOD),
    "ycbcr.tif": (_bytes("TIFF", "YCbCr", compression="tiff_lzw"), GOOD),
    "lab.tif": (_bytes("TIFF", "LAB"), "has the unsupported color mode LAB"),
    "gray 16.png": (_bytes("PNG", "I;16"), GOOD),
    "gray 16 b.tif": (_bytes("TIFF", "I;16"), GOOD),
    "rgb 16.png": (_wide_png(3), GOOD),
    "rgba 16.png": (_wide_png(4), GOOD),
    "rgb 16 b.tif": (_tiff(_bands(3, np.uint16), photometric="rgb"), GOOD),
    "float.tif": (_tiff(NAN), "holds float32 values"),
    "signed.tif": (_tiff(_bands(1)[..., 0].view(np.int8)), "holds signed values"),
    "int32.tif": (_tiff(np.zeros((SIDE, SIDE), np.int32)), "holds int32 values"),
    # Bands, pages, previews.
    "4 bands.tif": (_tiff(_bands(4), photometric="rgb", extrasamples=[0]), f"4 {BANDS}"),
    "5 bands.tif": (_tiff(_bands(5), photometric="rgb", extrasamples=[0, 0]), f"5 {BANDS}"),
    "pages.tif": (_frames("TIFF"), PAGES),
    "animated.gif": (_frames("GIF"), PAGES),
    "animated b.webp": (_frames("WEBP"), PAGES),
    "animated c.png": (_frames("PNG"), PAGES),
    "raw.tif": (_tiff(_bands(3), photometric="rgb", subfiletype=1), "is a raw photograph"),
    "mpo.jpg": (_frames("MPO"), "left out: further images"),
    # Metadata.
    "turned.jpg": (_bytes("JPEG", exif=_exif({Base.Orientation: 3})), GOOD),
    "on its side.jpg": (_bytes("JPEG", exif=_exif({Base.Orientation: 6})), GOOD),
    "turned b.webp": (
        _bytes("WEBP", exif=_exif({Base.Orientation: 6})),
        GOOD,
    ),
    "maker notes.jpg": (
        _bytes("JPEG", exif=_exif({34665: {Base.MakerNote: b"preview"}})),
        "left out: maker notes",
    ),
    "broken exif.jpg": (_bytes("JPEG", exif=b"Exif\0\0nonsense"), "left out: unreadable EXIF"),
    "comment.jpg": (_bytes("JPEG", comment=b"hello", xmp=XMP), GOOD),
    "profile.jpg": (_bytes("JPEG", icc_profile=SRGB), GOOD),
    "bad profile.jpg": (_bytes("JPEG", icc_profile=b"nonsense"), GOOD),
    "text.png": (_bytes("PNG", pnginfo=_png_text({"Title": "Sea"})), GOOD),
    "preview.png": (
        _bytes("PNG", pnginfo=_png_text({"Thumb::Image": "x"})),
        "left out: text 'Thumb::Image'",
    ),
    "map.tif": (
        _tiff(
            _bands(3),
            photometric="rgb",
            extratags=[(33550, "d", 3, (1.0, 1.0, 0.0), True)],
        ),
        "left out: map coordinates (GeoTIFF)",
    ),
    "private tag.tif": (
        _tiff(_bands(3), photometric="rgb", extratags=[(65000, "s", 0, "x", True)]),
        "left out: tag 65000",
    ),
    # Damage and size.
    "cut.jpg": (_bytes("JPEG")[:-200], DAMAGED),
    "cut b.png": (_bytes("PNG")[:-60], DAMAGED),
    "cut d.png": (_bytes("PNG")[:-12], DAMAGED),
    "wrong checksum.png": (_changed(_bytes("PNG", compress_level=0)), DAMAGED),
    "cut, then zeros.jpg": (_bytes("JPEG")[:-200] + bytes(200), DAMAGED),
    "cut c.tif": (_bytes("TIFF")[:-600], UNREADABLE),
    "empty.png": (b"", "it is empty"),
    "zeros.png": (bytes(1000), "it is not a JPEG, PNG"),
    "letter.png": (b"Dear Sir or Madam", "it is not a JPEG, PNG"),
    "page.jpg": (b"<html>404</html>", "it is not a JPEG, PNG"),
    "video.heic": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(99), "it is not a JPEG, PNG"),
    "huge.png": (_bomb(), "has 100000x100000 pixels"),
}
# These are passed over, and counted.
OTHERS = {
    "notes.txt": b"BM, no image",
    "list.csv": b"a,b",
    "side.xmp": XMP,
    "raw.nef": _tiff(_bands(3), photometric="rgb", subfiletype=1),
    "clip.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(99),
    "layers.psd": b"8BPS" + bytes(99),
    "README": b"Photographs.",
    ".DS_Store": b"\0\0\0\x01Bud1",
    "._plain.png": b"what macOS leaves behind",
}
PASSED_OVER = (
    "passed over: 2 hidden, 1 .csv, 1 .mp4, 1 .nef, 1 .psd, 1 .txt, 1 .xmp, 1 without suffix; "
    "1 folder not searched (--recursive)"
)


def make(folder: Path) -> None:
    """Writes all files, and a folder with one more."""
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "a.png").write_bytes(_bytes("PNG"))
    contents = {name: content for name, (content, _) in FILES.items()} | OTHERS
    for name, content in contents.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
