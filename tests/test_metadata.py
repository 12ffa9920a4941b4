"""Tests of metadata: they are kept if the format can store them, or named as left out."""

import io
import struct
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from PIL.ExifTags import Base

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import Encoded, Picture, check_writable, encode, left_out, read, write

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="A"/></x:xmpmeta>'
THUMBNAIL = b"<xmp:Thumbnails><rdf:li xmpGImg:image='what was there'/></xmp:Thumbnails>"
GRAY = (
    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()[:16]
    + b"GRAY"
    + ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()[20:]
)


def photograph(height=149, width=203):
    """A smooth random image, uint8 RGB, whose sides are not multiples of a JPEG block."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )


def file_of(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return Encoded(file.getvalue(), f"a.{format.lower()}")


def rewritten(source, name):
    """Returns a file written again, and the names of the metadata that it loses."""
    picture = read(source)
    encoded = encode(name, picture.pixels, picture)
    return encoded, left_out(name, picture)


def tiff(tmp_path, pixels, **options):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    return tmp_path / "a.tif"


# --- Bands


@pytest.mark.parametrize(
    "bands, photometric, extra",
    [
        (4, "rgb", ["unspecified"]),
        (5, "rgb", ["unspecified"] * 2),
        (5, "rgb", ["unassalpha", "unspecified"]),
        (3, "minisblack", ["unspecified"] * 2),
        (5, "separated", ["unassalpha"]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_that_are_not_colors_are_refused(tmp_path, bands, photometric, extra, dtype):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 11, bands)).astype(dtype)
    options = {"planarconfig": "contig"} if photometric == "minisblack" else {}
    path = tiff(tmp_path, pixels, photometric=photometric, extrasamples=extra, **options)
    with pytest.raises(UsageError, match=rf"a.tif (has {bands} bands|cannot be read)"):
        read(path)


def test_unspecified_band_is_not_opacity(tmp_path):
    path = tiff(tmp_path, np.zeros((9, 11, 4), np.uint8), photometric="rgb", extrasamples=[0])
    data = path.read_bytes()
    # Without the tag ExtraSamples, Pillow takes the fourth band for opacity.
    entry = struct.pack("<HHI", Base.ExtraSamples, 3, 1)
    assert data.count(entry) == 1
    path.write_bytes(data.replace(entry, struct.pack("<HHI", 60000, 3, 1)))
    with pytest.raises(UsageError, match="has 4 bands, of which the file declares 3 as color"):
        read(path)


def test_raw_photographs_are_refused(tmp_path):
    pixels = np.zeros((9, 11, 3), np.uint8)
    path = tiff(tmp_path, pixels, photometric="rgb", subfiletype=1)
    with pytest.raises(UsageError, match="is a raw photograph, of which only a preview"):
        read(path)


# --- Texts, maps, colors


def test_map_coordinates_are_kept_in_tiff_and_named_for_other_formats(tmp_path):
    tags = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 1e6, 2e6, 0.0), True),
        (34735, "H", 4, (1, 1, 0, 0), True),
        (42113, "s", 0, "-9999", True),
        (65000, "s", 0, "private", True),
    ]
    for dtype in (np.uint8, np.uint16):
        path = tiff(tmp_path, np.zeros((9, 11, 3), dtype), photometric="rgb", extratags=tags)
        encoded, lost = rewritten(path, "b.tif")
        with Image.open(io.BytesIO(encoded)) as opened:
            for tag, _, _, value, _ in tags[:-1]:
                assert opened.tag_v2[tag] == value
                assert opened.tag_v2.tagtype[tag] == {"d": 12, "H": 3, "s": 2}[_type(tags, tag)]
        assert lost == ("tag 65000",)
        assert rewritten(path, "b.png")[1] == ("tag 65000", "map coordinates (GeoTIFF)")
    turned = [*tags[:-1], (Base.Orientation, "H", 1, 6, True)]
    path = tiff(tmp_path, np.zeros((9, 11, 3), np.uint8), photometric="rgb", extratags=turned)
    encoded, lost = rewritten(path, "b.tif")
    assert lost == ("map coordinates, as the image was turned upright",)
    assert 33922 not in Image.open(io.BytesIO(encoded)).tag_v2


def _type(tags, wanted):
    return next(kind for tag, kind, *_ in tags if tag == wanted)


def png_source(**options):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Sea", zip=True)
    info.add_itxt("Author", "J\u00f3n", lang="is")
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    info.add_text("Raw profile type exif", "a preview in hexadecimal")
    info.add_text("Thumb::Image", "a preview")
    info.add(b"gAMA", struct.pack(">I", 100000))
    info.add(b"cHRM", struct.pack(">8I", *range(31270, 31278)))
    info.add(b"caBX", b"a signature of the pixels")
    return file_of(photograph(), "PNG", pnginfo=info, **options)


@pytest.mark.parametrize("wide", [False, True])
def test_texts_and_colors_of_png_are_kept(wide):
    source = png_source(dpi=(300, 300))
    picture = read(source)
    if wide:
        pytest.importorskip("cv2", minversion="5")
        picture = Picture(
            picture.pixels.astype(np.uint16) * 257,
            metadata=picture.metadata,
            left_out=picture.left_out,
        )
    encoded = encode("b.png", picture.pixels, picture)
    with Image.open(io.BytesIO(encoded)) as opened:
        opened.load()
        assert {key: opened.text[key] for key in ("Title", "Author")} == {
            "Title": "Sea",
            "Author": "J\u00f3n",
        }
        assert opened.info["gamma"] == 1.0 and opened.info["chromaticity"][0] == 0.3127
        assert opened.info["xmp"] == XMP.replace(b'"6"', b'"1"')
        assert round(opened.info["dpi"][0]) == 300
        assert not {"Raw profile type exif", "Thumb::Image"} & opened.text.keys()
    assert left_out("b.png", picture) == (
        "text 'Raw profile type exif'",
        "text 'Thumb::Image'",
        "PNG caBX",
    )
    np.testing.assert_array_equal(read(Encoded(encoded)).pixels, picture.pixels)


def test_metadata_that_other_formats_cannot_store_are_named():
    texts = ("text 'Title'", "text 'Author'", "PNG gAMA", "PNG cHRM")
    first = left_out("b.png", read(png_source()))
    assert left_out("b.jpg", read(png_source())) == (*first, *texts)
    assert left_out("b.bmp", read(png_source())) == (*first, "XMP", *texts)
    photo = file_of(photograph(), "JPEG", comment=b"hello", xmp=XMP, dpi=(300, 300))
    assert left_out("b.png", read(photo)) == left_out("b.jpg", read(photo)) == ()
    assert left_out("b.tif", read(photo)) == ("comment",)
    assert left_out("b.webp", read(photo)) == ("comment", "resolution")
    assert left_out("b.bmp", read(photo)) == ("XMP", "comment")


@pytest.mark.parametrize("name", ["b.jpg", "b.png", "b.tif", "b.webp"])
def test_xmp_and_comments_are_kept(name):
    encoded, _ = rewritten(file_of(photograph(), "JPEG", comment=b"hello", xmp=XMP), name)
    with Image.open(io.BytesIO(encoded)) as opened:
        opened.load()
        # Pillow takes the orientation from XMP as well; only a JPEG keeps its stored orientation.
        assert opened.info["xmp"] == (XMP if name == "b.jpg" else XMP.replace(b'"6"', b'"1"'))
        assert opened.info.get("comment", opened.info.get("Comment")) in (
            {"b.jpg": b"hello", "b.png": "hello"}.get(name),
            None,
        )


def test_previews_in_xmp_are_left_out():
    encoded, lost = rewritten(file_of(photograph(), "JPEG", xmp=XMP + THUMBNAIL), "b.jpg")
    assert lost == ("thumbnail",) and b"what was there" not in encoded
    encoded, lost = rewritten(file_of(photograph(), "JPEG", xmp=XMP + THUMBNAIL[16:]), "b.png")
    assert lost == ("XMP, which holds an image",) and b"what was there" not in encoded


def test_iptc_captions_are_kept_and_other_segments_are_named():
    def segment(number, content):
        return bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(content) + 2) + content

    caption = b"\x1c\x02x\0\x05Beach"
    resources = b"Photoshop 3.0\0"
    for code, data in ((0x0404, caption), (0x040C, b"a thumbnail")):
        resources += (
            struct.pack(">4sHHI", b"8BIM", code, 0, len(data)) + data + b"\0" * (len(data) % 2)
        )
    extra = segment(13, resources) + segment(11, b"JP, of a signature")
    encoded, lost = rewritten(file_of(photograph(), "JPEG", extra=extra), "b.jpg")
    assert Image.open(io.BytesIO(encoded)).info["photoshop"] == {0x0404: caption}
    assert lost == ("JPEG APP11", "Photoshop's resources")
    assert b"a thumbnail" not in encoded
    assert rewritten(file_of(photograph(), "JPEG", extra=extra), "b.png")[1] == (*lost, "IPTC")


def test_a_gray_profile_is_not_written_into_an_rgb_file():
    gray = file_of(photograph().convert("L"), "PNG", icc_profile=GRAY)
    encoded, lost = rewritten(gray, "b.webp")
    assert "icc_profile" not in Image.open(io.BytesIO(encoded)).info
    assert lost == ("color profile, which is for gray",)
    encoded, lost = rewritten(gray, "b.jpg")
    assert Image.open(io.BytesIO(encoded)).info["icc_profile"] == GRAY and not lost
    wrong = Picture(np.zeros((4, 4, 3), np.uint8), metadata={"icc_profile": GRAY})
    assert left_out("b.png", wrong) == lost or left_out("b.png", wrong)[0].startswith("color")


def test_exif_entries_left_out_are_named():
    exif = Image.Exif()
    exif.update({Base.Make: "Maker", 40091: "Titel".encode("utf-16le"), 50341: b"PrintIM"})
    exif[34665] = {Base.MakerNote: b"a preview"}
    photo = file_of(photograph(), "JPEG", exif=exif)
    encoded, lost = rewritten(photo, "b.jpg")
    assert lost == ("maker notes", "tag 50341")
    assert Image.open(io.BytesIO(encoded)).getexif()[40091]
    assert rewritten(file_of(photograph(), "JPEG", exif=b"Exif\0\0nonsense"), "b.png")[1] == (
        "unreadable EXIF",
    )


# --- Repeated JPEG compression


def loss(image, **options):
    """Returns the mean error of a JPEG that is decoded and encoded again, in 255ths."""
    picture = read(file_of(image, "JPEG", **options))
    again = read(Encoded(encode("b.jpg", picture.pixels, picture)))
    return np.abs(again.pixels.astype(int) - picture.pixels).mean(), again


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_rotated_jpeg_loses_as_little_as_an_upright_one(subsampling):
    options = {"quality": 80, "subsampling": subsampling}
    upright, _ = loss(photograph(), **options)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[Base.Orientation] = orientation
        turned, again = loss(photograph(), exif=exif, xmp=XMP, **options)
        assert turned == pytest.approx(upright, rel=1e-6)
        size = (149, 203) if orientation < 5 else (203, 149)
        assert again.pixels.shape[:2] == size
        assert again.jpeg["orientation"] == orientation


def test_orientation_is_kept_when_exif_is_too_long():
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    photo = file_of(photograph(), "JPEG", exif=exif)
    picture = read(photo)
    assert "exif" not in picture.metadata
    encoded = encode("b.jpg", picture.pixels, picture)
    np.testing.assert_allclose(read(Encoded(encoded)).pixels, picture.pixels.astype(int), atol=15)


def test_rgb_jpeg_stays_rgb():
    error, again = loss(photograph(), quality=80, keep_rgb=True)
    assert error < 0.02 and again.jpeg["keep_rgb"]


@pytest.mark.parametrize("numbers", [(1, 0, 0), (2, 3, 3), (3, 0, 0)])
def test_unusual_quantization_table_numbers_are_read(numbers):
    expected, _ = loss(photograph(), quality=60, subsampling=0)
    data = file_of(photograph(), "JPEG", quality=60, subsampling=0).data
    changed = bytearray(data)
    frame = data.index(b"\xff\xc0") + 10
    for component, number in enumerate(numbers):
        changed[frame + 3 * component + 2] = number
    for table in range(2):  # Renumbers the tables of luma (0) and chroma (1).
        changed[data.index(b"\xff\xdb\0\x43" + bytes([table])) + 4] = numbers[table]
    picture = read(Encoded(bytes(changed)))
    again = read(Encoded(encode("b.jpg", picture.pixels, picture))).pixels
    assert np.abs(again.astype(int) - picture.pixels).mean() == pytest.approx(expected)


def test_one_table_for_luma_and_chroma_is_kept():
    table = [8] * 64
    error, again = loss(photograph(), qtables=[table], subsampling=0)
    assert error < 0.2 and again.jpeg["qtables"] == [table, table]


# --- Global state of other libraries, and checks before inpainting


def test_reading_does_not_change_global_state():
    cv2 = pytest.importorskip("cv2", minversion="5")
    level = cv2.utils.logging.getLogLevel()
    filters = list(warnings.filters)
    known, seen, done = dict(Image.OPEN), set(), threading.Event()

    def watch():
        while not done.is_set():
            seen.add((Image.MAX_IMAGE_PIXELS, len(warnings.filters)))
            seen.add(cv2.utils.logging.getLogLevel())

    watcher = threading.Thread(target=watch)
    watcher.start()
    photo = file_of(photograph(1490, 2030), "JPEG")
    wide = np.zeros((900, 900, 3), np.uint16)
    large = Encoded(encode("a.png", wide, Picture(wide)))
    for _ in range(5):
        read(photo)
        read(large)
    done.set()
    watcher.join()
    assert seen == {(Image.MAX_IMAGE_PIXELS, len(filters)), level}
    assert {name: known[name] for name in known} == {name: Image.OPEN[name] for name in known}
    assert "HEIF" not in Image.OPEN


def test_heic_is_read_without_registering_it():
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(photograph()).save(file, quality=90)
    assert read(Encoded(file.getvalue())).pixels.shape == (149, 203, 3)
    assert "HEIF" not in Image.OPEN


def test_tiff_above_pillows_limit_is_read(tmp_path, monkeypatch):
    photograph().save(tmp_path / "a.tif")
    photograph().save(tmp_path / "b.tif", compression="tiff_lzw")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name in ("a.tif", "b.tif"):
        np.testing.assert_array_equal(read(tmp_path / name).pixels, photograph())


@pytest.mark.parametrize(
    "mode, name, message",
    [
        ("RGBA", "a.jpg", "JPEG cannot hold transparency"),
        ("RGB", "a.avif", ".avif is not a supported format"),
        ("I;16", "a.webp", "WEBP cannot hold 16 bits"),
    ],
)
def test_formats_are_checked_without_encoding(mode, name, message):
    with pytest.raises(UsageError, match=f"^{name} cannot be written: {message}"):
        check_writable(name, read(Image.new(mode, (4, 4))))
    check_writable("a.png", read(Image.new(mode, (4, 4))))


def test_sides_above_the_limit_of_a_format_are_refused_before_inpainting(tmp_path):
    strip = Picture(np.zeros((1, 20000, 3), np.uint8))
    with pytest.raises(UsageError, match="WEBP holds at most 16383 pixels per side, and the image"):
        check_writable("a.webp", strip)
    write(tmp_path / "a.jpg", strip.pixels, strip)
