"""Tests of the web UI without a browser."""

from pathlib import Path

import gradio as gr
import gradio.processing_utils
import numpy as np
import pytest
from app_fixtures import (
    HEIGHT,
    LARGE,
    MASK,
    OPTIONS,
    PICTURE,
    WIDTH,
    bomb,
    file,
    filled,
    make_request,
    pixels_of,
    stroke,
)
from made import make_picture
from PIL import Image

from deepfill_jax import pictures
from deepfill_jax.app import layout, painting
from deepfill_jax.app.filling import Summary
from deepfill_jax.inpaint.canvas import extend
from deepfill_jax.inpaint.windows import STRATEGIES
from deepfill_jax.pictures import preview

pytest_plugins = ["app_fixtures"]
MASK_OPTIONS = (0.5, "auto", False)  # The defaults of threshold, orientation and unchecked.


def test_painted_hole_is_filled_at_the_images_full_size(
    client, uploaded, called, inpainter, folder
):
    large, _ = make_picture(*LARGE)
    called("open_picture", uploaded(file(large), "../x <b>.png"))
    layer, hole = stroke()
    *_, download, own, status = filled(uploaded, called, layer, *OPTIONS)
    result = client.get(f"/gradio_api/file={download['path']}")
    expected = inpainter(large, pictures.resize_mask(hole[..., np.newaxis], *LARGE))
    np.testing.assert_array_equal(pixels_of(result), expected)
    assert download["orig_name"].endswith("_completed.png") and not own["visible"]
    assert status.startswith("63x47 pixels, original, ")
    # The result becomes the next input.
    called("again")
    *_, download, _, _ = filled(uploaded, called, layer, *OPTIONS[:-1], 1)
    extended, new = extend(expected, 0, 0, 0, 1)
    mask = new | extend(pictures.resize_mask(hole[..., np.newaxis], *LARGE), 0, 0, 0, 1)[0]
    result = client.get(f"/gradio_api/file={download['path']}")
    np.testing.assert_array_equal(pixels_of(result), inpainter(extended, mask))
    # Files that are no longer in use are deleted, and the rest when the session ends.
    session = Path(download["path"]).parents[1]
    assert session.parent == folder
    # The files are the input, its preview and the one before it, which the editor loads again while
    # the input changes, the result and its mask, and previews before and after.
    assert len([x for x in session.rglob("*") if x.is_file()]) == 7
    called("leave")
    assert not session.exists()
    assert client.get(f"/gradio_api/file={download['path']}").status_code in (403, 404)


def layer_of(shares, height=HEIGHT, width=WIDTH):
    """Returns a layer with strokes painted one after the other, blended as a browser does.

    Args:
        shares: Pairs of a colour and the coverage of each pixel by a stroke, [H, W] in [0, 1].
    """
    layer = np.zeros((height, width, 4))
    for colour, covered in shares:
        alpha = covered[..., np.newaxis] * preview.OPACITY
        layer = layer * (1 - alpha) + alpha * np.array([*np.divide(colour, 255), 1.0])
        layer = np.rint(layer * 255) / 255  # 8 bits, premultiplied by opacity.
    opacity = layer[..., 3:]
    colours = np.divide(
        layer[..., :3], opacity, out=np.zeros_like(layer[..., :3]), where=opacity > 0
    )
    return file(np.rint(255 * np.concatenate([colours, opacity], axis=2)).astype(np.uint8))


def disc(row, column, radius):
    """Returns the coverage of a disc with antialiased edges."""
    y, x = np.indices((HEIGHT, WIDTH))
    return np.clip(radius - np.hypot(y - row, x - column) + 0.5, 0, 1)


def test_hole_and_sketch_are_distinguished_by_colour():
    red, on_it, across, apart = disc(20, 15, 12), disc(20, 13, 4), disc(20, 27, 5), disc(20, 48, 6)
    none = np.zeros((HEIGHT, WIDTH))
    painted = painting.painted(layer_of([(preview.HOLE, red)]))
    np.testing.assert_array_equal(painted, [red[..., np.newaxis] > 0, none[..., np.newaxis]])
    layer = layer_of([(preview.HOLE, red), *((painting.LINE, x) for x in (on_it, across, apart))])
    hole, lines = (x[..., 0] for x in painting.painted(layer))
    # A line that touches red belongs to the hole as well; a line apart from it does not.
    np.testing.assert_array_equal(hole, (red > 0) | (across > 0))
    sure = sum(x == 1 for x in (on_it, across, apart)) > 0
    maybe = sum(x > 0 for x in (on_it, across, apart)) > 0
    assert lines[sure].all() and not lines[~maybe].any()
    np.testing.assert_array_equal(lines[:, 42:], apart[:, 42:] > 0)
    # The stroke painted last counts.
    hole, lines = painting.painted(layer_of([(painting.LINE, on_it), (preview.HOLE, red)]))
    np.testing.assert_array_equal(hole[..., 0], red > 0)
    assert not lines.any()


@pytest.mark.parametrize("name", ["guided", "tiny"])
def test_painted_sketch_is_used_by_guided_models_only(
    client, uploaded, called, guided, inpainter, name
):
    large, large_mask = make_picture(*LARGE)
    called("open_picture", uploaded(file(large)), session="lines")
    called("open_mask", uploaded(file(large_mask), "m.png"), *MASK_OPTIONS, session="lines")
    title, about, editor = called("take_model", name, session="lines")
    assert ("blue" in title) == (len(editor["brush"]["colors"]) == 2) == (name == "guided")
    assert f"**{name}**" in about
    red, blue = disc(20, 15, 12), disc(20, 27, 5)
    layer = layer_of([(preview.HOLE, red), (painting.LINE, blue)])
    *_, download, _, status = filled(uploaded, called, layer, name, *OPTIONS[1:], session="lines")
    hole, lines = (pictures.resize_mask(x, *LARGE) for x in painting.painted(layer))
    hole |= large_mask[..., np.newaxis] > 0
    if name == "guided":
        expected = guided(large, hole, sketch=lines)
        assert (expected != guided(large, hole)).any()
    else:
        expected = inpainter(large, hole)
    result = client.get(f"/gradio_api/file={download['path']}")
    np.testing.assert_array_equal(pixels_of(result), expected)
    assert ("sketch was ignored" in status) == (name == "tiny")
    called("leave", session="lines")


def test_uploaded_mask_is_used_and_format_is_kept(client, uploaded, called, inpainter):
    picture, mask, _ = make_request()
    jpeg = file(picture, "JPEG", quality=60)
    called("open_picture", uploaded(jpeg, "photo.jpg"), session="you")
    empty, _ = np.zeros((HEIGHT, WIDTH, 4), np.uint8), None
    assert "nothing to fill" in filled(uploaded, called, file(empty), *OPTIONS, session="you")
    assert "m.png is 56x9, but photo.jpg is 56x40" in called(
        "open_mask", uploaded(file(mask[:9]), "m.png"), *MASK_OPTIONS, session="you"
    )
    called("open_mask", uploaded(file(mask), "m.png"), *MASK_OPTIONS, session="you")
    changes = filled(uploaded, called, file(empty), *OPTIONS, session="you")
    *_, own, _ = changes
    assert own["label"] == "Download JPEG" and own["visible"]
    read = pictures.read(pictures.Encoded(jpeg))
    expected = pictures.encode("x.jpg", inpainter(read.pixels, mask), read)
    assert client.get(f"/gradio_api/file={own['value']['path']}").content == expected
    called("remove_mask", session="you")
    assert "nothing to fill" in filled(uploaded, called, file(empty), *OPTIONS, session="you")


def test_uploaded_mask_is_read_with_the_options_of_the_page(uploaded, called, client, inpainter):
    picture, mask, _ = make_request()
    numbers = file((mask > 0) * np.uint8(3))
    called("open_picture", uploaded(file(picture)), session="numbers")
    error = called("open_mask", uploaded(numbers, "m.png"), *MASK_OPTIONS, session="numbers")
    assert (
        "m.png has no hole" in error
        and "&quot;Threshold&quot; 0 makes every value above 0 hole" in error
    )
    called("open_mask", uploaded(numbers, "m.png"), 0, "auto", False, session="numbers")
    empty = file(np.zeros((HEIGHT, WIDTH, 4), np.uint8))
    *_, png, _, _ = filled(uploaded, called, empty, *OPTIONS, session="numbers")
    result = client.get(f"/gradio_api/file={png['path']}")
    np.testing.assert_array_equal(pixels_of(result), inpainter(picture, mask))
    # The options can be changed after the upload.
    error = called("take_mask_options", *MASK_OPTIONS, session="numbers")
    assert "m.png has no hole" in error
    called("take_mask_options", 0.5, "auto", True, session="numbers")
    assert "nothing to fill" in filled(uploaded, called, empty, *OPTIONS, session="numbers")


def test_ambiguous_orientation_of_a_mask_is_shown(uploaded, called):
    exif = Image.Exif()
    exif[0x0112] = 3  # Turned by 180 degrees.
    picture, mask, _ = make_request()
    called("open_picture", uploaded(file(picture, "JPEG", exif=exif)), session="turned")
    called("open_mask", uploaded(file(mask)), *MASK_OPTIONS, session="turned")
    (warning,) = called.warnings
    assert "upright or stored with &quot;Orientation&quot;" in warning
    called("take_mask_options", 0.5, "stored", False, session="turned")
    assert called.warnings == []


def test_web_ui_shows_errors_and_keeps_its_state(uploaded, called):
    layer, _ = stroke()
    assert "choose one first" in filled(uploaded, called, layer, *OPTIONS, session="new")
    assert "There is no result yet" in called("again", session="new")
    error = called("open_picture", uploaded(bomb(), "a.png"), session="new")
    assert "20000x10000 pixels" in error
    error = called("open_picture", uploaded(file(PICTURE)[:-60], "<i>.png"), session="new")
    assert "&lt;i&gt;.png cannot be read" in error or "i.png cannot be read" in error
    called("open_picture", uploaded(file(PICTURE)), session="new")
    assert "cannot be read" in filled(uploaded, called, b"no layer", *OPTIONS, session="new")
    assert "has 20000x10000" in filled(uploaded, called, bomb(), *OPTIONS, session="new")
    # The image that was open before an error stays open.
    assert "cannot be read" in called("open_picture", uploaded(b"x", "b.png"), session="new")
    assert filled(uploaded, called, layer, *OPTIONS, session="new")[-1].startswith("56x40 pixels")


def test_fill_before_an_image_is_chosen(client, uploaded, called, capfd):
    components = client.get("/config").json()["components"]
    props = {part["props"].get("elem_id"): part["props"] for part in components}
    assert not props["fill"]["interactive"]
    assert props["status"]["value"] == "Choose an image first."
    assert "choose one first" in called("fill", None, *OPTIONS, session="early")
    assert "choose one first" in called(
        "open_mask", uploaded(file(MASK)), *MASK_OPTIONS, session="early"
    )
    assert capfd.readouterr().err == ""
    opened = called("open_picture", uploaded(file(PICTURE)), session="early")
    assert {"interactive": True, "__type__": "update"} in opened
    called("leave", session="early")


def test_gradio_is_subclassed_not_patched(app):
    assert gr.ImageEditor.preprocess.__module__ == "gradio.components.image_editor"
    get = gradio.processing_utils.async_ssrf_protected_get
    assert get.__module__ == "gradio.processing_utils"
    package = Path(layout.__file__).parents[1]
    assert not list(package.rglob("*.pyi"))  # gradio writes one for a subclass of a component.


def test_mask_is_downloaded_as_deepfill_inpaint_reads_it(client, uploaded, called):
    called("open_picture", uploaded(file(PICTURE), "photo.jpg"), session="mask")
    layer, hole = stroke()
    _, mask, *_ = filled(uploaded, called, layer, *OPTIONS[:2], 3, *OPTIONS[3:], session="mask")
    assert mask["orig_name"] == "photo_mask.png"
    downloaded = client.get(f"/gradio_api/file={mask['path']}")
    np.testing.assert_array_equal(pixels_of(downloaded), np.where(hole, 255, 0))
    called("leave", session="mask")


def test_fills_leave_no_uploads_behind(uploaded, called, folder):
    before = set(folder.iterdir())
    called("open_picture", uploaded(file(PICTURE)), session="tidy")
    for seed in range(2):
        editor = {"layers": [uploaded(stroke()[0], "layer.png")]}
        for number, name in enumerate(("background", "composite")):
            shown, _ = make_picture(HEIGHT, WIDTH, 9 + seed + 2 * number)
            editor[name] = uploaded(file(shown), f"{name}.png")
        *_, status = called("fill", editor, *OPTIONS, session="tidy")
        assert status.startswith("56x40 pixels")
    (session,) = {x for x in folder.iterdir() if x.is_dir()} - before
    called("leave", session="tidy")
    assert not session.exists()


def test_start_over_removes_image_and_result(uploaded, called, folder):
    called("open_picture", uploaded(file(PICTURE)), session="over")
    layer, _ = stroke()
    *_, download, _, _ = filled(uploaded, called, layer, *OPTIONS, session="over")
    session = Path(download["path"]).parents[1]
    updates = called("start_over", session="over")
    assert not [x for x in session.rglob("*") if x.is_file()]
    assert "Choose an image first." in updates
    assert {"interactive": False, "__type__": "update"} in updates
    assert "choose one first" in filled(uploaded, called, layer, *OPTIONS, session="over")
    called("leave", session="over")


def test_status_says_size_scale_work_and_time():
    words = {
        ("resize", 256 / 1500): "resize, filled at 256 px and enlarged 5.9 times, ",
        ("crop", 0.5): "crop, filled at 256 px and enlarged up to 2.0 times, ",
        ("original", 1.0): "original, filled at full size, ",
    }
    for (strategy, scale), expected in words.items():
        summary = Summary("1500x1000", strategy, scale, 4.567, 3.21)
        expected += "4.57 megapixels processed in 3.2 s."
        assert layout.summary(summary, 256) == f"1500x1000 pixels, {expected}"


def test_options_are_in_plain_words(client):
    config = client.get("/config").json()
    labels = {part["props"].get("label") for part in config["components"]}
    assert {
        "Grow the hole (dilate)",
        "Soften the border (feather)",
        "Image size",
        "Work for thin holes",
        "Copy detail",
        "Match colors at the border",
    } <= labels
    assert set(layout.STRATEGIES) == set(STRATEGIES)
    (title,) = [x for x in config["components"] if x["props"].get("elem_id") == "title"]
    assert "[Help](help)" in title["props"]["value"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_previews_show_alpha_and_hole(dtype, channels):
    full = np.iinfo(dtype).max
    pixels = np.full((1400, 2560, channels), full // 2, dtype)
    alpha = np.full((1400, 2560, 1), full, dtype)
    alpha[:700] = 0
    hole = np.zeros((1400, 2560, 1), bool)
    hole[:, :1280] = True
    shown = np.asarray(preview.preview(pictures.Picture(pixels, alpha), hole))
    assert shown.shape == (700, 1280, 3)
    assert (shown[:350, 640:] == 255).all() and (shown[350:, 640:] == 127).all()
    red = shown[350:, :640]
    assert (red[..., 0] > 127).all() and (red[..., 1] < 127).all()
