"""What a picture hands to its completed form beside pixels: EXIF, profile, compression."""

from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin
from PIL.ExifTags import IFD, Base

# What stays true of a completed picture. The rest of EXIF says how a TIFF file lies, or may show
# what was in the hole: the thumbnail, and previews in the maker's notes.
_EXIF_KEPT = (
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.HostComputer,
    Base.Copyright,
)
_EXIF_DROPPED = (
    Base.MakerNote,
    Base.ExifImageWidth,
    Base.ExifImageHeight,
    Base.ExifInteroperabilityOffset,
)
_LONGEST_EXIF = 65533  # A JPEG holds no more.


def orientation(opened: Image.Image) -> int:
    """Which sides row 0 and column 0 are at, 1..8 as EXIF counts them; 1 is upright."""
    try:
        return opened.getexif().get(Base.Orientation, 1)
    except Exception:  # As many kinds as ways to be corrupt.
        return 1


def metadata(opened: Image.Image) -> dict[str, Any]:
    """`exif`, `icc_profile` and `dpi`, those that there are, as Pillow's `save` takes them."""
    found = {}
    if exif := _exif(opened):
        found["exif"] = exif
    # A profile of print colours says nothing of the RGB that they become.
    if opened.mode != "CMYK" and (profile := opened.info.get("icc_profile")):
        found["icc_profile"] = profile
    # Pillow's 1 is a TIFF's that says nothing; a JPEG holds 65535.
    dpi = tuple(float(x) for x in opened.info.get("dpi", ()))
    if len(dpi) == 2 and all(1 < x <= 65535 for x in dpi):
        found["dpi"] = dpi
    return found


def _exif(opened: Image.Image) -> bytes:
    """What is kept of EXIF; empty if nothing, or if it is corrupt."""
    try:
        found, kept = opened.getexif(), Image.Exif()
        kept.update({tag: found[tag] for tag in _EXIF_KEPT if tag in found})
        for directory in (IFD.Exif, IFD.GPSInfo):
            tags = found.get_ifd(directory)
            if tags := {tag: value for tag, value in tags.items() if tag not in _EXIF_DROPPED}:
                kept[directory] = tags
        block = kept.tobytes() if len(kept) else b""
    except Exception:  # See above.
        return b""
    return block if len(block) <= _LONGEST_EXIF else b""


def jpeg(opened: Image.Image) -> dict[str, Any]:
    """How a JPEG was compressed: `qtables` and `subsampling` as Pillow's `save` takes them."""
    if not isinstance(opened, JpegImagePlugin.JpegImageFile) or opened.mode == "CMYK":
        return {}
    # What Pillow cannot write (4:4:0, 4:1:1) keeps all of its chroma.
    subsampling = max(0, JpegImagePlugin.get_sampling(opened))
    return {"qtables": opened.quantization, "subsampling": subsampling}


def upright(x: np.ndarray, orientation: int) -> np.ndarray:
    """Turns [H, W, C] as EXIF's orientation says: which sides row 0 and column 0 are at."""
    if orientation in (5, 6, 7, 8):
        x = x.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    return np.ascontiguousarray(x)
