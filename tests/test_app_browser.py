"""Tests of the web UI in headless Chromium.

DEEPFILL_SCREENSHOTS=FOLDER saves screenshots for inspection.
"""

import time
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from made import make_model
from server import serve

from deepfill_jax import weights
from deepfill_jax.inpaint.canvas import extend
from deepfill_jax.inpaint.inpainter import Inpainter

selenium = pytest.importorskip("selenium")
import browser as browsers  # noqa: E402
from browser import HEIGHT, SIZES, WIDTH, Browser, pixels_of, smooth_picture  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (browsers.CHROMIUM and browsers.DRIVER), reason="there is no chromium and chromedriver"
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    weights.save(folder / "guided.safetensors", make_model("official", guided=True))
    with serve(folder, "--model", str(folder / "guided.safetensors")) as server:
        yield server


@pytest.fixture(params=SIZES)
def browser(request, server, tmp_path):
    browser = Browser(server.url, tmp_path, request.param)
    try:
        yield browser
        assert browser.hosts() == {urlsplit(server.url).hostname}
    finally:
        browser.driver.quit()
    deadline = time.monotonic() + 60
    while server.temporary_files():  # The server deletes the files of a closed page.
        assert time.monotonic() < deadline, server.temporary_files()
        time.sleep(0.5)


def test_paint_undo_erase_and_fill(browser):
    picture = smooth_picture()
    assert not browser.find("#fill").is_enabled()
    assert browser.text("#status") == "Choose an image first."
    browser.open(picture)
    assert browser.find("#fill").is_enabled()
    browser.stroke((-60, -40), (60, -40))
    browser.shot("painted", "#editor")
    first = pixels_of(browser.fill())
    assert first.shape == picture.shape
    browser.shot("filled", "#result")
    changed = (first != picture).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 500 < changed.sum() < changed.size / 3
    assert rows.max() < HEIGHT / 2 + 20 and 60 < columns.min() and columns.max() < WIDTH - 60
    # A second stroke is undone, then the first one is erased.
    browser.stroke((-60, 50), (60, 50))
    second = (pixels_of(browser.fill()) != picture).any(axis=2)
    assert second[HEIGHT // 2 + 25 :].sum() > 500
    browser.tool("Undo")
    np.testing.assert_array_equal(pixels_of(browser.fill()), first)
    browser.tool("Erase")
    for x in range(-90, 91, 15):
        browser.stroke((x, -60), (x, -20))
    browser.click("#fill")
    browser.until(lambda: "There is nothing to fill" in browser.text("body"))
    browser.until(lambda: not browser.text("#status"))
    browser.shot("nothing")
    browser.click("#start-over")
    browser.until(lambda: browser.text("#status") == "Choose an image first.")
    assert not browser.shown("#editor") and not browser.find("#fill").is_enabled()


def test_uploaded_mask_gives_the_result_of_the_api(browser, server):
    # The image is larger than its preview, and a scaled mask would lose details of the hole.
    picture = smooth_picture(900, 1500)
    mask = np.zeros((900, 1500), np.uint8)
    mask[400:500:2, 700:800] = 255
    browser.open(picture, "photo.jpg")
    previous = browser.view()
    browser.upload(":has(> #mask) > input[type=file]", mask, "mask.png")
    browser.find("#unmask")
    browser.wait_for_image(previous)
    browser.shot("masked", "#editor")
    png = browser.fill()
    own = browser.download("#own")
    for format, downloaded in (("png", png), ("same", own)):
        files = {
            "image": ("photo.jpg", (browser.folder / "photo.jpg").read_bytes()),
            "mask": ("mask.png", (browser.folder / "mask.png").read_bytes()),
        }
        answer = httpx.post(f"{server.url}/api/inpaint", files=files, data={"format": format})
        assert answer.content == downloaded


def test_extend_and_continue_with_the_result(browser):
    inpainter = Inpainter(make_model("official"))
    picture = smooth_picture()
    browser.open(picture)
    browser.click("#extend button")
    field = browser.scroll_to(browser.find("#sides input[aria-label='Left']"))
    field.clear()
    field.send_keys("24\t")
    time.sleep(0.5)
    browser.shot("extend", "#extend")
    expected = inpainter(*extend(picture, 0, 0, 0, 24))
    np.testing.assert_array_equal(pixels_of(browser.fill()), expected)
    previous = browser.view()
    browser.click("#again")
    browser.until(lambda: not browser.shown("#again"))
    browser.wait_for_image(previous)
    browser.stroke((-50, 0), (50, 0))
    result = pixels_of(browser.fill())
    assert result.shape == expected.shape
    changed = (result != expected).any(axis=2)
    assert 500 < changed.sum() < changed.size / 3 and not changed[:, :40].any()


def test_editor_loads_images_after_it_was_painted_on(browser):
    def replace(action):
        previous = browser.view()
        action()
        browser.wait_for_image(previous)
        browser.until(lambda: not browser.shown("#editor .wrap.default:not(.hide)"))
        browser.stroke((-50, 0), (50, 0))

    picture, mask = smooth_picture(), np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[50:80, 50:80] = 255
    browser.open(picture)
    browser.stroke((-50, 40), (50, 40))
    browser.fill()
    for _ in range(2):
        replace(lambda: browser.click("#again"))
        browser.fill()
    replace(lambda: browser.upload(":has(> #mask) > input[type=file]", mask, "mask.png"))
    browser.shot("masked_after_painting", "#editor")
    other = picture[::-1, ::-1]
    replace(lambda: browser.upload("#upload input[type=file]", other, "b.png"))
    changed = (pixels_of(browser.fill()) != other).any(axis=2)
    assert 500 < changed.sum() < changed.size / 3 and not changed[50:80, 50:80].any()


def test_example_image_is_opened_and_filled(browser):
    skimage = pytest.importorskip("skimage.data")
    browser.click("#examples button, #examples img")
    browser.wait_for_image()
    browser.stroke((-50, 0), (50, 0))
    changed = (pixels_of(browser.fill()) != skimage.astronaut()).any(axis=2)
    assert 500 < changed.sum() < changed.size / 3
    browser.shot("example", "#result")


def test_painted_sketch_guides_the_result(browser):
    picture = smooth_picture()
    browser.open(picture)
    browser.stroke((-60, -40), (60, -40))
    browser.choose_model("guided")  # Changing the model keeps the painted hole.
    browser.until(lambda: "blue" in browser.text("#title"))
    browser.stroke((-60, -10), (60, -10))
    plain = pixels_of(browser.fill())
    browser.tool("Color")
    browser.shot("brushes", "#editor")
    browser.click("#editor .swatch button:nth-child(2)")
    browser.tool("Brush")  # Closes the colour picker, which covers the image.
    browser.stroke((-30, -25), (30, -25))
    browser.shot("line", "#editor")
    guided = pixels_of(browser.fill())
    browser.shot("guided", "#title")
    # The line does not change the hole.
    hole, filled = ((x != picture).any(axis=2) for x in (plain, guided))
    assert hole.sum() > 2000 and filled.sum() > 0.95 * hole.sum()
    rows, columns = (np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0))
    filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = False
    assert not filled.any()
    assert (guided != plain).any(axis=2).sum() > 500
    browser.tool("Undo")
    np.testing.assert_array_equal(pixels_of(browser.fill()), plain)
