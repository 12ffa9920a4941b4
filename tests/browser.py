"""Drives the web UI in headless Chromium for tests.

DEEPFILL_SCREENSHOTS=FOLDER saves screenshots for inspection.
"""

import io
import json
import os
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import selenium
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HEIGHT, WIDTH = 300, 400
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def smooth_picture(height=HEIGHT, width=WIDTH):
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x // width, 255 * y // height, 128 + 0 * x], axis=-1).astype(np.uint8)


class Browser:
    """A browser with the web UI open, with a window of one of `SIZES`."""

    def __init__(self, url, folder, kind, *flags):
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
            *flags,
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
        self.driver.get(f"{url}/")
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
        self.wait_for_image()

    def view(self):
        """Returns a screenshot of the editor's canvas."""
        return self.find("#editor canvas").screenshot_as_png

    def wait_for_image(self, previous=None):
        """Waits until the editor has loaded an image; strokes painted before that are lost.

        Args:
            previous: What `view` returned while another image was shown.
        """

        def is_loaded():
            view = self.view()
            height, width, _ = pixels_of(view).shape
            middle = pixels_of(view)[height // 4 : -height // 4, width // 4 : -width // 4, :3]
            if view == previous or middle.std() < 20:  # It is empty, or is fading in.
                return False
            time.sleep(1)
            return self.view() == view

        self.until(is_loaded, 120)

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
