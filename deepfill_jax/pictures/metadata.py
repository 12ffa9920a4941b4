"""Reads the metadata that a completed image keeps: EXIF, color profile, texts, JPEG compression.

Thumbnails, previews and maker notes are never kept, because they may show the original content of
the hole.
"""

import re
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin
from PIL.ExifTags import IFD, Base

from deepfill_jax.pictures import formats

# Tags that remain true for a completed image, including those of Windows: title, comment, author,
# keywords, subject, rating.
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
# Tags of the pixel layout, and tags that are read by other means; see TIFF 6.0.
_STRUCTURE = frozenset(
    [*range(254, 260), 262, 263, 266, 273, 274, *range(277, 285), 284, 296, 297, 317, 320]
    + [*range(322, 326), 332, 334, 338, 339, 340, 341, 347, *range(512, 522), *range(529, 533)]
    + [_XMP_TAG, IFD.Exif, IFD.GPSInfo, IFD.Interop, 34675]
)
# Map coordinates (GeoTIFF), and the tags that GDAL adds.
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
_LONGEST_EXIF = 65533  # Maximum bytes in a JPEG.
_XMP_THUMBNAILS = re.compile(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", re.DOTALL)
_XMP_PICTURES = (b"xmpGImg:image", b"xapGImg:image", b"GImage:Data", b"GDepth:Data")
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[1-8]")
# PNG chunks that are copied unchanged, and those that are read by other means.
PNG_COLOUR = (b"gAMA", b"cHRM", b"cICP", b"sRGB")
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PNG_STRUCTURE = b"IHDR PLTE tRNS IDAT IEND pHYs eXIf iCCP bKGD hIST".split()
_PNG_PREVIEWS = re.compile(rb"raw profile|xml:com\.adobe\.xmp|.*(thumb|preview)", re.IGNORECASE)
_IPTC_RESOURCE = 0x0404


def orientation(opened: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 is upright, and the default if it is unreadable."""
    try:
        return opened.getexif().get(Base.Orientation, 1)
    except Exception:  # Corrupt metadata raise many types of exceptions.
        return 1


def read(
    opened: Image.Image, data: bytes, *, is_upright: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Reads the metadata of a loaded image that a result may keep.

    Args:
        opened: The image.
        data: Content of its file; empty for a PIL image.
        is_upright: Whether the stored orientation is upright, so that map coordinates stay valid.

    Returns:
        The metadata and the names of the entries that are left out. The metadata have the keys
        `exif`, `icc_profile`, `dpi`, `comment` and `xmp` in the form of Pillow's `save`; `png`, a
        list of chunks (name, data); `tiff`, tags with (type, value); and `iptc`, a caption in
        bytes. Keys without a value are absent.
    """
    exif, left_out = _exif(opened, is_upright)
    xmp, without = _xmp(opened.info.get("xmp"))
    left_out += without
    found = {"exif": exif, "xmp": xmp, "comment": opened.info.get("comment")}
    # A CMYK profile does not apply to the converted RGB values.
    if opened.mode != "CMYK":
        found["icc_profile"] = opened.info.get("icc_profile")
    # Pillow reports 1 for a TIFF without a resolution; the maximum in a JPEG is 65535.
    dpi = tuple(float(x) for x in opened.info.get("dpi", ()))
    if len(dpi) == 2 and all(1 < x <= 65535 for x in dpi):
        found["dpi"] = dpi
    if opened.format == "PNG":
        found["png"], without = _png(data)
        left_out += without
    if isinstance(opened, TiffImagePlugin.TiffImageFile) and is_upright:
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
    """Returns the kept EXIF, which may be empty, and the names of the entries left out."""
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
    except Exception:  # See `orientation`.
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
    """Replaces the orientation in XMP, if it has one."""
    return _XMP_ORIENTATION.sub(rb"\g<1>%d" % orientation, xmp)


def _png(data: bytes) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    kept, left_out = [], []
    for name, view, _ in formats.png_chunks(data):
        content = b"" if name == b"IDAT" else bytes(view)
        if name in PNG_COLOUR or (name in _PNG_TEXT and not _PNG_PREVIEWS.match(content)):
            kept.append((name, content))
        elif name in _PNG_TEXT:
            keyword = content.split(b"\0")[0]
            if keyword != b"XML:com.adobe.xmp":  # Pillow reads XMP.
                left_out.append(f"text {keyword.decode('latin-1')!r}")
        elif name not in _PNG_STRUCTURE:
            left_out.append(f"PNG {name.decode('latin-1')}")
    return kept, left_out


def _jpeg_markers(opened: JpegImagePlugin.JpegImageFile) -> tuple[bytes | None, list[str]]:
    """Returns a JPEG's IPTC caption, and the names of the application segments left out."""
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
    """Returns a JPEG's `qtables`, `subsampling`, `keep_rgb` and `orientation`.

    The first three have the form of Pillow's `save`. The result is empty for other formats.
    """
    if not isinstance(opened, JpegImagePlugin.JpegImageFile) or opened.mode not in ("L", "RGB"):
        return {}
    # Pillow uses the first table for luma and the second for chroma, whatever the file's numbers.
    numbers = [component[3] for component in opened.layer]
    try:
        tables = [np.asarray(opened.quantization[number]) for number in numbers]
    except KeyError:  # Frames of a motion JPEG stream may have no tables.
        return {}
    is_rgb = len(numbers) == 3 and (
        opened.info.get("adobe_transform") == 0 or [x[0] for x in opened.layer] == [*b"RGB"]
    )
    groups = [tables] if is_rgb else [tables[:1], tables[1:]]
    # The tables of a group rarely differ; the minimum loses the least detail.
    tables = [np.min(group, axis=0).tolist() for group in groups if group]
    # Pillow cannot write 4:4:0 and 4:1:1, so these files get full chroma resolution.
    subsampling = 0 if is_rgb else max(0, JpegImagePlugin.get_sampling(opened))
    how = {"qtables": tables, "subsampling": subsampling}
    if is_rgb:
        how["keep_rgb"] = True
    if orientation != 1:
        how["orientation"] = orientation
    return how


def upright(x: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels [H, W, C] upright, given the EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        x = x.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    return np.ascontiguousarray(x)


def as_it_lay(x: np.ndarray, orientation: int) -> np.ndarray:
    """Turns upright pixels [H, W, C] back to the stored orientation: the inverse of `upright`."""
    # Orientations 6 and 8 are inverse to each other; the other six are their own inverses.
    return upright(x, {6: 8, 8: 6}.get(orientation, orientation))
