"""What a picture hands to its completed form beside pixels: EXIF, profile, texts, compression.

What may show what was in the hole is never kept: thumbnails, previews, maker's notes.
"""

import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin
from PIL.ExifTags import IFD, Base

# What stays true of a completed picture, with the tags of Windows: title, comment, author,
# keywords, subject, stars.
_EXIF_KEPT = (
    Base.DocumentName,
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.HostComputer,
    Base.Copyright,
    *range(40091, 40096),
    18246,
    18249,
)
_EXIF_DROPPED = (
    Base.MakerNote,
    Base.ExifImageWidth,
    Base.ExifImageHeight,
    Base.ExifInteroperabilityOffset,
)
_XMP_TAG, _PHOTOSHOP_TAG = 700, 34377
# How a TIFF file lies, and what is read as something else: see TIFF 6.0.
_STRUCTURE = frozenset(
    [*range(254, 260), 262, 263, 266, 273, 274, *range(277, 285), 284, 296, 297, 317, 320]
    + [*range(322, 326), 332, 334, 338, 339, 340, 341, 347, *range(512, 522), *range(529, 533)]
    + [_XMP_TAG, IFD.Exif, IFD.GPSInfo, IFD.Interop, 34675]
)
# Where a map lies on the Earth (GeoTIFF), and what GDAL adds.
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
_LONGEST_EXIF = 65533  # A JPEG holds no more.
_XMP_THUMBNAILS = re.compile(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", re.DOTALL)
_XMP_PICTURES = (b"xmpGImg:image", b"xapGImg:image", b"GImage:Data", b"GDepth:Data")
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[1-8]")
# Chunks of PNG that are kept as they are, and those that are read as something else.
PNG_COLOUR = (b"gAMA", b"cHRM", b"cICP", b"sRGB")
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PNG_STRUCTURE = b"IHDR PLTE tRNS IDAT IEND pHYs eXIf iCCP bKGD hIST".split()
_PNG_PREVIEWS = re.compile(rb"raw profile|xml:com\.adobe\.xmp|.*(thumb|preview)", re.IGNORECASE)
_IPTC_RESOURCE = 0x0404


def orientation(opened: Image.Image) -> int:
    """Which sides row 0 and column 0 are at, 1..8 as EXIF counts them; 1 is upright."""
    try:
        return opened.getexif().get(Base.Orientation, 1)
    except Exception:  # As many kinds as ways to be corrupt.
        return 1


def read(
    opened: Image.Image, data: bytes, *, is_upright: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Reads what a result may keep of a loaded picture beside its pixels.

    Args:
        opened: The picture.
        data: Its file; empty for a PIL picture.
        is_upright: Whether its rows lie as in the file, so that a map's coordinates stay true.

    Returns:
        `exif`, `icc_profile`, `dpi`, `comment` and `xmp` as Pillow's `save` takes them; `png`, a
        list of chunks (name, data); `tiff`, tags with (type, value); `iptc`, a caption in bytes:
        those that there are. And names of what is left out.
    """
    exif, left_out = _exif(opened, is_upright)
    xmp, without = _xmp(opened.info.get("xmp"))
    left_out += without
    found = {"exif": exif, "xmp": xmp, "comment": opened.info.get("comment")}
    # A profile of print colours says nothing of the RGB that they become.
    if opened.mode != "CMYK":
        found["icc_profile"] = opened.info.get("icc_profile")
    # Pillow's 1 is a TIFF's that says nothing; a JPEG holds 65535.
    dpi = tuple(float(x) for x in opened.info.get("dpi", ()))
    if len(dpi) == 2 and all(1 < x <= 65535 for x in dpi):
        found["dpi"] = dpi
    if opened.format == "PNG":
        found["png"], without = _png(data)
        left_out += without
    if opened.format == "TIFF" and is_upright:
        tags = opened.tag_v2
        found["tiff"] = {tag: (tags.tagtype[tag], tags[tag]) for tag in GEO_TAGS if tag in tags}
    if isinstance(opened, JpegImagePlugin.JpegImageFile):
        found["iptc"], without = _jpeg_markers(opened)
        left_out += without
    if opened.format in ("MPO", "HEIF") and getattr(opened, "n_frames", 1) > 1:
        left_out.append("further images")
    if opened.mode == "CMYK":
        left_out.append("print colors (CMYK), converted to sRGB")
    if opened.format == "HEIF" and opened.info.get("bit_depth", 8) > 8:
        left_out.append("bits of color beyond 8")
    return {name: x for name, x in found.items() if x}, tuple(dict.fromkeys(left_out))


def _exif(opened: Image.Image, is_upright: bool) -> tuple[bytes, list[str]]:
    """Returns what is kept of EXIF, empty if nothing, and names of what is left out."""
    try:
        found, kept = opened.getexif(), Image.Exif()
        kept.update({tag: found[tag] for tag in _EXIF_KEPT if tag in found})
        if not found and opened.info.get("exif"):
            return b"", ["unreadable EXIF"]
        left_out = ["thumbnail"] * bool(found.get_ifd(IFD.IFD1))
        for directory in (IFD.Exif, IFD.GPSInfo):
            tags = found.get_ifd(directory)
            left_out += ["maker notes"] * (Base.MakerNote in tags)
            if tags := {tag: value for tag, value in tags.items() if tag not in _EXIF_DROPPED}:
                kept[directory] = tags
        known = _STRUCTURE.union(_EXIF_KEPT, GEO_TAGS if opened.format == "TIFF" else ())
        left_out += [f"tag {tag}" for tag in found if tag not in known]
        if not is_upright and any(tag in found for tag in GEO_TAGS):
            left_out.append("map coordinates, as the image was turned upright")
        block = kept.tobytes() if len(kept) else b""
    except Exception:  # See above.
        return b"", ["unreadable EXIF"]
    if len(block) > _LONGEST_EXIF:
        return b"", [f"EXIF of {len(block)} bytes"]
    return block, left_out


def _xmp(xmp: Any) -> tuple[bytes | None, list[str]]:
    if not isinstance(xmp, bytes):
        return None, ["XMP"] * bool(xmp)
    without = _XMP_THUMBNAILS.sub(b"", xmp)
    if any(name in without for name in _XMP_PICTURES):
        return None, ["XMP, which holds an image"]
    return with_orientation(without, 1), ["thumbnail"] * (without != xmp)


def with_orientation(xmp: bytes, orientation: int) -> bytes:
    """Replaces the orientation that XMP states, if it states one."""
    return _XMP_ORIENTATION.sub(rb"\g<1>%d" % orientation, xmp)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of a PNG file's chunks, except for the pixels."""
    start = 8
    while start + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[start : start + 8])
        if name != b"IDAT":
            yield name, data[start + 8 : start + 8 + length]
        start += 12 + length


def _png(data: bytes) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    kept, left_out = [], []
    for name, content in png_chunks(data):
        if name in PNG_COLOUR or (name in _PNG_TEXT and not _PNG_PREVIEWS.match(content)):
            kept.append((name, content))
        elif name in _PNG_TEXT:
            keyword = content.split(b"\0")[0]
            if keyword != b"XML:com.adobe.xmp":  # Which Pillow reads.
                left_out.append(f"text {keyword.decode('latin-1')!r}")
        elif name not in _PNG_STRUCTURE:
            left_out.append(f"PNG {name.decode('latin-1')}")
    return kept, left_out


def _jpeg_markers(opened: JpegImagePlugin.JpegImageFile) -> tuple[bytes | None, list[str]]:
    """Returns IPTC's caption of a JPEG, and names of application segments that are left out."""
    known = ("APP0", "COM", "APP14")
    starts = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"MPF\0")
    left_out = [
        f"JPEG {name}"
        for name, content in opened.applist
        if name not in known and not content.startswith((*starts, b"Photoshop 3.0\0"))
    ]
    resources = opened.info.get("photoshop", {})
    left_out += ["Photoshop's resources"] * bool(resources.keys() - {_IPTC_RESOURCE})
    return resources.get(_IPTC_RESOURCE), left_out


def jpeg(opened: Image.Image, orientation: int) -> dict[str, Any]:
    """How a JPEG was compressed and lay: `qtables`, `subsampling`, `keep_rgb` and `orientation`.

    The first three are as Pillow's `save` takes them; empty for what was no JPEG.
    """
    if not isinstance(opened, JpegImagePlugin.JpegImageFile) or opened.mode not in ("L", "RGB"):
        return {}
    # Pillow gives luma the first table and both chromas the second, whatever the file's numbers.
    numbers = [component[3] for component in opened.layer]
    try:
        tables = [np.asarray(opened.quantization[number]) for number in numbers]
    except KeyError:  # A file without tables, as in a stream of motion JPEG.
        return {}
    is_rgb = len(numbers) == 3 and (
        opened.info.get("adobe_transform") == 0 or [x[0] for x in opened.layer] == [*b"RGB"]
    )
    groups = [tables] if is_rgb else [tables[:1], tables[1:]]
    # Tables of one group differ in rare files only; the finest of them keeps the most.
    tables = [np.min(group, axis=0).tolist() for group in groups if group]
    # What Pillow cannot write (4:4:0, 4:1:1) keeps all of its chroma.
    subsampling = 0 if is_rgb else max(0, JpegImagePlugin.get_sampling(opened))
    how = {"qtables": tables, "subsampling": subsampling}
    if is_rgb:
        how["keep_rgb"] = True
    if orientation != 1:
        how["orientation"] = orientation
    return how


def upright(x: np.ndarray, orientation: int) -> np.ndarray:
    """Turns [H, W, C] as EXIF's orientation says: which sides row 0 and column 0 are at."""
    if orientation in (5, 6, 7, 8):
        x = x.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    return np.ascontiguousarray(x)


def as_it_lay(x: np.ndarray, orientation: int) -> np.ndarray:
    """Turns upright [H, W, C] back: the inverse of `upright`."""
    # Quarter turns are each other's inverses; the other six are their own.
    return upright(x, {6: 8, 8: 6}.get(orientation, orientation))
