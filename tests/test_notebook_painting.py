"""Uploading and painting in a notebook, with stand-ins for Google Colab."""

import sys
from types import ModuleType

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from deepfill_jax import notebook
from deepfill_jax.errors import UsageError

HEIGHT, WIDTH = 300, 400


@pytest.fixture
def colab(monkeypatch):
    """Stands in for the package google.colab."""
    package = ModuleType("google.colab")
    package.files, package.output = ModuleType("files"), ModuleType("output")
    monkeypatch.setitem(sys.modules, "google.colab", package)
    return package


@pytest.fixture
def photo(tmp_path):
    """A photograph that is stored on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (HEIGHT, WIDTH), "gray").save(path, exif=exif)
    return path


def test_this_is_not_colab():
    assert not notebook.is_colab()


@pytest.mark.parametrize(
    "names, expected",
    [
        (["a.jpg"], ("a.jpg", None)),
        (["a.jpg", "b.png"], ("a.jpg", "b.png")),
        (["a_Mask.png", "a.jpg"], ("a.jpg", "a_Mask.png")),
    ],
)
def test_one_or_two_files_are_uploaded(colab, names, expected):
    colab.files.upload = lambda: dict.fromkeys(names, b"")
    assert tuple(path and str(path) for path in notebook.upload()) == expected


@pytest.mark.parametrize("names", [[], ["a", "b", "c"]])
def test_other_numbers_of_files_are_refused(colab, names):
    colab.files.upload = lambda: dict.fromkeys(names, b"")
    with pytest.raises(UsageError, match=f"^{len(names)} files were uploaded; upload a photo"):
        notebook.upload()


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
@pytest.mark.parametrize("is_painted", [True, False])
def test_mask_is_painted_on_the_upright_photograph(colab, photo, tmp_path, monkeypatch, is_painted):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))

    def show(page):
        (tmp_path / "page.html").write_text(page.data)
        driver.get(f"file://{tmp_path}/page.html")

    def evaluate(expression):
        canvas = driver.find_element(By.CSS_SELECTOR, "canvas")
        if is_painted:  # A stroke of 32 pixels from the centre to the right, and one undone.
            for down in (0, 100):
                stroke = ActionChains(driver).move_to_element(canvas).move_by_offset(0, down)
                stroke.click_and_hold().move_by_offset(100, 0).release().perform()
            driver.find_element(By.ID, "deepfill-undo").click()
        driver.find_element(By.ID, "deepfill-done").click()
        return driver.execute_async_script(f"{expression}.then(arguments[0])")

    monkeypatch.setattr("IPython.display.display", show)
    colab.output.eval_js = evaluate
    try:
        if not is_painted:
            with pytest.raises(UsageError, match="^Nothing was painted; "):
                notebook.paint(photo)
            return
        hole = notebook.paint(photo)
    finally:
        driver.quit()
    assert hole.shape == (HEIGHT, WIDTH, 1)
    rows, columns = np.flatnonzero(hole.any(axis=(1, 2))), np.flatnonzero(hole.any(axis=(0, 2)))
    np.testing.assert_allclose(rows[[0, -1]], [HEIGHT / 2 - 16, HEIGHT / 2 + 16], atol=2)
    np.testing.assert_allclose(columns[[0, -1]], [WIDTH / 2 - 16, WIDTH / 2 + 116], atol=2)
