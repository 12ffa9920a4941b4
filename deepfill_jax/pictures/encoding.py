"""Encodes images with their metadata: with Pillow, and 16-bit colours in PNG with OpenCV."""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from deepfill_jax.pictures.checks import RefusalError
from deepfill_jax.pictures.decoding import Picture, opencv
from deepfill_jax.pictures.formats import WRITABLE
from deepfill_jax.pictures.metadata import as_it_lay, with_orientation

# Pillow does not report the quality of a WebP file; only lossless WebP keeps known pixels.
_WEBP = {"lossless": True, "exact": True}
_JPEG = {"quality": 95, "subsampling": 0}  # For images that were not read from a JPEG.
_PNG_HEAD = 33  # Bytes of the signature and IHDR.
_METRE = 1 / 0.0254  # One metre in inches.
_XMP_TAG = 700
# The entries of `metadata.read` that each format can store, and their names in messages.
_HOLDS = {
    "PNG": ("exif", "icc_profile", "dpi", "xmp", "comment", "png"),
    "TIFF": ("exif", "icc_profile", "dpi", "xmp", "tiff"),
    "WEBP": ("exif", "icc_profile", "xmp"),
    "BMP": ("icc_profile", "dpi"),  # Images with a color profile are refused.
    "JPEG": ("exif", "icc_profile", "dpi", "xmp", "comment", "iptc"),
}
_NAMES = {
    "exif": "EXIF",
    "dpi": "resolution",
    "xmp": "XMP",
    "comment": "comment",
    "tiff": "map coordinates (GeoTIFF)",
    "iptc": "IPTC",
}
_LONGEST = {"xmp": 65504, "comment": 65533, "iptc": 65000}  # Maximum bytes in a JPEG.
_PROFILES = {b"RGB ": 3, b"GRAY": 1}  # Channels by the colour space in a profile's header.
_MAX_SIDES = {"WEBP": 16383, "JPEG": 65500}


def check(like: Picture, suffix: str) -> str:
    """Returns the format of a suffix if it can hold the completed image.

    Raises:
        RefusalError: The format is unknown, or cannot hold the image.
    """
    name = WRITABLE.get(suffix.lower())
    if name is None:
        problem = f"{suffix} is not a supported format" if suffix else "its name has no suffix"
        raise RefusalError(f"cannot be written: {problem}; use .png")
    alpha = like.alpha
    if name in ("JPEG", "BMP") and alpha is not None and (alpha != np.iinfo(alpha.dtype).max).any():
        raise RefusalError(f"cannot be written: {name} cannot hold transparency; use .png")
    if name == "BMP" and "icc_profile" in like.metadata:
        raise RefusalError("cannot be written: BMP cannot hold a color profile; use .png")
    if like.pixels.dtype == np.uint16 and name not in ("PNG", "TIFF"):
        raise RefusalError(f"cannot be written: {name} cannot hold 16 bits per channel; use .png")
    if like.pixels.dtype == np.uint16 and (like.pixels.shape[2] > 1 or alpha is not None):
        opencv()
    longest, most = max(like.pixels.shape[:2]), _MAX_SIDES.get(name, 2**31)
    if longest > most:
        raise RefusalError(
            f"cannot be written: {name} holds at most {most} pixels per side, and the image has "
            f"{longest}; use .png"
        )
    return name


def encode(pixels: np.ndarray, like: Picture, suffix: str) -> bytes:
    """Encodes pixels with the alpha and metadata of `like`; see `pictures.encode`.

    Raises:
        RefusalError: The format of this suffix is unknown or cannot hold the image.
    """
    name = check(like, suffix)
    whole = _channels(pixels, like, name)
    kept, _ = _kept(like, name, whole)
    if name == "PNG":
        return _png(whole, kept)
    if name == "TIFF" and whole.dtype == np.uint16 and whole.shape[2] > 1:
        return _wide_tiff(whole, kept)
    options = {"WEBP": _WEBP, "JPEG": like.jpeg or _JPEG}.get(name, {})
    if name == "JPEG":
        whole, options, kept = _jpeg(whole, options, kept)
    if name == "TIFF":
        kept = {"tiffinfo": _directory(kept)} | {x: kept[x] for x in ("dpi",) if x in kept}
    return _saved(whole, name, **options, **kept)


def left_out(like: Picture, suffix: str) -> tuple[str, ...]:
    """Names the metadata of the input file that a file of this format cannot store."""
    name = WRITABLE.get(suffix.lower(), "PNG")
    _, lost = _kept(like, name, _channels(like.pixels, like, name))
    return (*like.left_out, *lost)


def _channels(pixels: np.ndarray, like: Picture, name: str) -> np.ndarray:
    """Joins pixels and alpha in the channels that a format supports: [H, W, 1 to 4]."""
    if like.alpha is None or name in ("JPEG", "BMP"):
        return pixels.repeat(3, axis=2) if name == "WEBP" and pixels.shape[2] == 1 else pixels
    whole = np.concatenate([pixels, like.alpha], axis=2)
    if whole.shape[2] == 2 and (whole.dtype == np.uint16 or name == "WEBP"):
        return whole[..., [0, 0, 0, 1]]  # Neither OpenCV nor Pillow reads 16-bit grey with alpha.
    return whole


def _kept(like: Picture, name: str, whole: np.ndarray) -> tuple[dict[str, Any], list[str]]:
    """Returns the metadata that a format can store, and the names of the other entries."""
    kept = {key: x for key, x in like.metadata.items() if key in _HOLDS[name]}
    lost = [_NAMES[key] for key in like.metadata if key in _NAMES and key not in kept]
    if name != "PNG":
        lost += [_chunk_name(*chunk) for chunk in like.metadata.get("png", ())]
    for key, most in _LONGEST.items() if name == "JPEG" else ():
        if len(kept.get(key, b"")) > most:
            del kept[key]
            lost.append(_NAMES[key])
    profile = kept.get("icc_profile", b"")
    colours = 1 if whole.shape[2] < 3 else 3
    if profile and _PROFILES.get(profile[16:20], colours) != colours:
        del kept["icc_profile"]
        lost.append("color profile, which is for " + ("gray" if colours == 3 else "RGB"))
    return kept, lost


def _chunk_name(name: bytes, content: bytes) -> str:
    if name.lower().endswith(b"txt"):
        return f"text {content.split(bytes(1))[0].decode('latin-1')!r}"
    return f"PNG {name.decode()}"


def _saved(whole: np.ndarray, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(whole.squeeze(2) if whole.shape[2] == 1 else whole)
    image.save(file, name, **options)
    return file.getvalue()


def _jpeg(
    whole: np.ndarray, options: Mapping[str, Any], kept: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    """Restores the stored orientation of a JPEG, so that its blocks stay aligned, and its tag."""
    options, kept = dict(options), dict(kept)
    orientation = options.pop("orientation", 1)
    if orientation != 1:
        exif = Image.Exif()
        exif.load(kept.get("exif", b""))
        exif[Base.Orientation] = orientation
        kept["exif"] = exif.tobytes()
        if "xmp" in kept:
            kept["xmp"] = with_orientation(kept["xmp"], orientation)
    if caption := kept.pop("iptc", b""):
        resource = struct.pack(">4sHHI", b"8BIM", 0x0404, 0, len(caption)) + caption
        content = b"Photoshop 3.0\0" + resource + bytes(len(caption) % 2)
        options["extra"] = struct.pack(">BBH", 0xFF, 0xED, len(content) + 2) + content
    return as_it_lay(whole, orientation), options, kept


def _png(whole: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """Encodes [H, W, 1 to 4] as a PNG file of 8 or 16 bits per channel."""
    chunks = list(metadata.get("png", ()))
    if "xmp" in metadata:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata["xmp"]))
    if "comment" in metadata:
        chunks.append((b"tEXt", b"Comment\0" + metadata["comment"].replace(b"\0", b"")))
    if whole.dtype == np.uint16 and whole.shape[2] > 1:
        encoded = _wide_png(whole, metadata)
        if "dpi" in metadata:
            per_metre = (round(x * _METRE) for x in metadata["dpi"])
            chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    else:
        names = ("exif", "icc_profile", "dpi")
        encoded = _saved(whole, "PNG", **{x: metadata[x] for x in names if x in metadata})
    added = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
        # PNG allows either a profile or this chunk, which both define the color space.
        if not (name == b"sRGB" and "icc_profile" in metadata)
    )
    return encoded[:_PNG_HEAD] + added + encoded[_PNG_HEAD:]


def _wide_png(pixels: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """Encodes [H, W, 3 or 4] as a PNG file of 16 bits per channel."""
    cv2 = opencv()
    kept = {
        cv2.IMAGE_METADATA_EXIF: metadata.get("exif", b"").removeprefix(b"Exif\0\0"),
        cv2.IMAGE_METADATA_ICCP: metadata.get("icc_profile", b""),
    }
    kept = {kind: np.frombuffer(value, np.uint8) for kind, value in kept.items() if value}
    bgr = np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    _, encoded = cv2.imencodeWithMetadata(".png", bgr, list(kept), list(kept.values()))
    return encoded.tobytes()


def _directory(metadata: Mapping[str, Any]) -> ImageFileDirectory_v2:
    """Makes a TIFF directory with all entries but those of the pixel layout."""
    directory = ImageFileDirectory_v2()
    exif = Image.Exif()
    exif.load(metadata.get("exif", b""))
    for tag in exif:
        directory[tag] = exif.get_ifd(tag) or exif[tag]
    for tag, (kind, value) in metadata.get("tiff", {}).items():
        directory.tagtype[tag] = kind
        directory[tag] = value
    if "xmp" in metadata:
        directory.tagtype[_XMP_TAG] = 1  # Bytes.
        directory[_XMP_TAG] = metadata["xmp"]
    if "icc_profile" in metadata:
        directory[Base.InterColorProfile] = metadata["icc_profile"]
    return directory


def _wide_tiff(pixels: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """Encodes [H, W, 3 or 4] as a 16-bit TIFF file; OpenCV would lose the metadata."""
    height, width, channels = pixels.shape
    data = pixels.astype("<u2").tobytes()
    directory = _directory(metadata)
    if "dpi" in metadata:
        directory[Base.XResolution], directory[Base.YResolution] = metadata["dpi"]
        directory[Base.ResolutionUnit] = 2  # Inches.
    directory[Base.ImageWidth] = width
    directory[Base.ImageLength] = height
    directory[Base.BitsPerSample] = (16,) * channels
    directory[Base.Compression] = 1  # None.
    directory[Base.PhotometricInterpretation] = 2  # RGB.
    directory[Base.SamplesPerPixel] = channels
    if channels == 4:
        directory[Base.ExtraSamples] = 2  # The colours are not premultiplied by alpha.
    directory[Base.RowsPerStrip] = height
    directory[Base.StripByteCounts] = len(data)
    directory[Base.StripOffsets] = 0  # Pillow adds the length of the directory.
    file = io.BytesIO()
    directory.save(file)
    file.write(data)
    return file.getvalue()
