"""Encodes pictures with their metadata, by Pillow, and colours of 16 bits a channel by OpenCV."""

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from deepfill_jax.pictures.decoding import Picture, RefusalError, opencv

WRITABLE = {
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
}
# Pillow does not tell how well a WebP was compressed, and nothing less keeps known pixels.
_WEBP = {"lossless": True, "exact": True}
_JPEG = {"quality": 95, "subsampling": 0}  # Of what was no JPEG.
_PNG_HEAD = 33  # Signature and IHDR.
_METRE = 1 / 0.0254  # In inches.


def encode(pixels: np.ndarray, like: Picture, suffix: str) -> bytes:
    """Encodes pixels with the alpha and metadata of `like`; see `pictures.write`.

    Raises:
        RefusalError: The format of this suffix is unknown or cannot hold them.
    """
    name = WRITABLE.get(suffix.lower())
    if name is None:
        raise RefusalError(
            f"cannot be written: {suffix or 'no suffix'} is no format of ours; use .png"
        )
    alpha = like.alpha
    if name in ("JPEG", "BMP") and alpha is not None:
        if (alpha != np.iinfo(alpha.dtype).max).any():
            raise RefusalError(f"cannot be written: {name} holds no transparency; use .png")
        alpha = None
    if name == "BMP" and "icc_profile" in like.metadata:
        raise RefusalError("cannot be written: BMP holds no colour profile; use .png")
    is_wide = pixels.dtype == np.uint16
    if is_wide and name not in ("PNG", "TIFF"):
        raise RefusalError(f"cannot be written: {name} holds no 16 bits a channel; use .png")
    whole = pixels if alpha is None else np.concatenate([pixels, alpha], axis=2)
    if is_wide and whole.shape[2] > 1:
        if whole.shape[2] == 2:
            whole = whole[..., [0, 0, 0, 1]]  # Neither OpenCV nor Pillow reads grey and alpha.
        return (_wide_png if name == "PNG" else _wide_tiff)(whole, like.metadata)
    file = io.BytesIO()
    options = {"WEBP": _WEBP, "JPEG": like.jpeg or _JPEG}.get(name, {})
    Image.fromarray(whole.squeeze(2) if whole.shape[2] == 1 else whole).save(
        file, name, **options, **like.metadata
    )
    return file.getvalue()


def _wide_png(pixels: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """PNG of 16 bits, of [H, W, 3 or 4]."""
    cv2 = opencv()
    kept = {
        cv2.IMAGE_METADATA_EXIF: metadata.get("exif", b"").removeprefix(b"Exif\0\0"),
        cv2.IMAGE_METADATA_ICCP: metadata.get("icc_profile", b""),
    }
    kept = {kind: np.frombuffer(value, np.uint8) for kind, value in kept.items() if value}
    bgr = np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    _, encoded = cv2.imencodeWithMetadata(".png", bgr, list(kept), list(kept.values()))
    file = io.BytesIO()
    file.write(encoded[:_PNG_HEAD])
    if "dpi" in metadata:
        per_metre = (round(x * _METRE) for x in metadata["dpi"])
        PngImagePlugin.putchunk(file, b"pHYs", struct.pack(">IIB", *per_metre, 1))
    file.write(encoded[_PNG_HEAD:])
    return file.getvalue()


def _wide_tiff(pixels: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """TIFF of 16 bits, of [H, W, 3 or 4]; OpenCV's would lose the metadata."""
    height, width, channels = pixels.shape
    data = pixels.astype("<u2").tobytes()
    directory = ImageFileDirectory_v2()
    exif = Image.Exif()
    exif.load(metadata.get("exif", b""))
    for tag in exif:
        directory[tag] = exif.get_ifd(tag) or exif[tag]
    if "icc_profile" in metadata:
        directory[Base.InterColorProfile] = metadata["icc_profile"]
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
        directory[Base.ExtraSamples] = 2  # Alpha that the colours are not multiplied by.
    directory[Base.RowsPerStrip] = height
    directory[Base.StripByteCounts] = len(data)
    directory[Base.StripOffsets] = 0  # After the directory, as Pillow counts when it saves it.
    file = io.BytesIO()
    directory.save(file)
    file.write(data)
    return file.getvalue()
