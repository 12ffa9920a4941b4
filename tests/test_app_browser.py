"""Tests of the web UI in headless Chromium.

DEEPFILL_SCREENSHOTS=FOLDER saves screenshots for inspection.
"""

import io
import json
import os
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from made import make_model
from PIL import Image
from server import serve

from deepfill_jax import weights
from deepfill_jax.inpaint.canvas import extend
from deepfill_jax.inpaint.inpainter import Inpainter

selenium = pytest.importorskip("selenium")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no chromium and chromedriver"),
]

HEIGHT, WIDTH = 300, 400
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def smooth_picture(height=HEIGHT, width=WIDTH):
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x // width, 255 * y // height, 128 + 0 * x], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    weights.save(folder / "guided.safetensors", make_model("official", guided=True))
    with serve(folder, "--model", str(folder / "guided.safetensors")) as server:
        yield server


@pytest.fixture(params=SIZES)
def browser(request, server, tmp_path):
    browser = Browser(server, tmp_path, request.param)
    try:
        yield browser
        assert browser.hosts() == {urlsplit(server.url).hostname}
    finally:
        browser.driver.quit()
    deadline = time.monotonic() + 60
    while server.temporary_files():  # The server deletes the files of a closed page.
        assert time.monotonic() < deadline, server.temporary_files()
        time.sleep(0.5)


class Browser:
    """A browser with the web UI open, with a window of one of `SIZES`."""

    def __init__(self, server, folder, kind):
        self.folder, self.kind = folder, kind
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        width, height = SIZES[kind]
        for flag in (
            "--headless=new",
            "--no-sandbox",  # The sandbox does not work for root.
            "--disable-dev-shm-usage",
            "--enable-unsafe-swiftshader",
            f"--window-size={width},{height}",
        ):
            options.add_argument(flag)
        options.add_experimental_option(
            "prefs", {"download.default_directory": str(self.downloads)}
        )
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.requests = []
        if kind == "phone":
            self.driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True},
            )
        self.driver.get(f"{server.url}/")
        self.find("#fill")
        self.shot("empty")

    def until(self, holds, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            try:
                if value := holds():
                    return value
            except selenium.common.exceptions.StaleElementReferenceException:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def shown(self, selector):
        """Returns the first visible element that matches a selector, or None."""
        parts = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return next((part for part in parts if part.is_displayed()), None)

    def find(self, selector):
        """Waits for a visible element that matches a selector, and returns it."""
        return self.until(lambda: self.shown(selector))

    def text(self, selector):
        return self.driver.execute_script(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )

    def scroll_to(self, part):
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", part)
        time.sleep(0.3)
        return part

    def click(self, selector):
        self.scroll_to(self.find(selector)).click()

    def upload(self, selector, pixels, name):
        path = self.folder / name
        Image.fromarray(pixels).save(path)
        (field,) = self.driver.find_elements(By.CSS_SELECTOR, selector)
        field.send_keys(str(path))

    def open(self, pixels, name="a.png"):
        self.upload("#upload input[type=file]", pixels, name)
        self.find("#editor canvas")
        self.find("#editor button[aria-label='Brush']")
        time.sleep(2)  # Waits for the fade-in animation of the image.

    def stroke(self, *points):
        """Paints from point to point, in pixels from the centre of the canvas."""
        canvas = self.scroll_to(self.find("#editor canvas"))
        chain = ActionChains(self.driver)
        chain.move_to_element_with_offset(canvas, *points[0]).click_and_hold()
        for point in points[1:]:
            chain.move_to_element_with_offset(canvas, *point)
        chain.release().perform()
        time.sleep(1)

    def tool(self, name):
        self.click(f"#editor button[aria-label='{name}']")
        time.sleep(0.5)

    def choose_model(self, name):
        self.click("input[aria-label='Model']")
        self.click(f"[role=option][aria-label='{name}']")
        time.sleep(2)

    def fill(self):
        """Presses Fill, downloads the result and returns the content of its file."""
        shown = "return document.querySelector('#result img')?.src ?? ''"
        before = self.driver.execute_script(shown)
        self.click("#fill")
        self.until(lambda: self.driver.execute_script(shown) not in ("", before))
        time.sleep(0.5)
        return self.download("#png")

    def download(self, selector):
        for path in self.downloads.glob("*_completed.*"):
            path.unlink()
        self.click(selector)

        def finished():
            paths = self.downloads.glob("*_completed.*")
            return [path for path in paths if path.suffix != ".crdownload"]

        (path,) = self.until(finished)
        time.sleep(0.3)
        return path.read_bytes()

    def shot(self, name, part=None):
        """Saves a screenshot if requested; checks that the page is no wider than the window."""
        across = "return [document.documentElement.scrollWidth, window.innerWidth]"
        scrolled, inner = self.driver.execute_script(across)
        assert scrolled <= inner
        if folder := os.environ.get("DEEPFILL_SCREENSHOTS"):
            if part:
                self.scroll_to(self.find(part))
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(f"{folder}/{self.kind}_{name}.png")

    def hosts(self):
        """Returns the hosts to which the page sent requests."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        urls = [urlsplit(url) for url in self.requests]
        return {url.hostname for url in urls if url.scheme not in ("data", "blob")}


def pixels_of(data):
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


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
    browser.upload(":has(> #mask) > input[type=file]", mask, "mask.png")
    browser.find("#unmask")
    time.sleep(2)
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
    browser.click("#again")
    browser.until(lambda: not browser.shown("#again"))
    time.sleep(2)
    browser.stroke((-50, 0), (50, 0))
    result = pixels_of(browser.fill())
    assert result.shape == expected.shape
    changed = (result != expected).any(axis=2)
    assert 500 < changed.sum() < changed.size / 3 and not changed[:, :40].any()


def test_example_image_is_opened_and_filled(browser):
    skimage = pytest.importorskip("skimage.data")
    browser.click("#examples button, #examples img")
    browser.find("#editor canvas")
    time.sleep(3)
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
