"""Makes docs/web-ui.png: the web UI after one object has been removed from a photograph.

    python tests/web_ui_screenshot.py [--output docs/web-ui.png]

It needs the `test` extra, chromium and chromedriver. The photograph is scikit-image's `rocket`, in
the public domain; the model is "scenes".
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import browser as browsers
from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[1]
WINDOW = (1200, 1130)  # Pixels.
COLORS = 256  # Size of the palette, which makes the file a quarter of the size of RGB.
# The mast to the right of the rocket, from its tip down, in pixels of the photograph.
MAST = [(447, 120), (450, 200), (452, 260), (446, 300), (460, 310), (448, 345), (464, 350)]


def paint(browser, points, size):
    """Paints along `points` of the photograph, which has `size` (width, height)."""
    zoom = int(re.search(r"(\d+)%", browser.text("#editor"))[1]) / 100
    browser.stroke(*((zoom * (x - size[0] / 2), zoom * (y - size[1] / 2)) for x, y in points))


def take(url, folder):
    """Removes the mast in a browser at `url` and returns the screenshot, a PNG file."""
    browser = browsers.Browser(url, folder, "screenshot")
    try:
        photo = data.rocket()
        browser.open(photo, "rocket.png")
        paint(browser, MAST, photo.shape[1::-1])
        browser.fill()
        browser.fill()  # The time that is shown is without compiling.
        browser.driver.execute_script("window.scrollTo(0, 0)")
        return browser.driver.get_screenshot_as_png()
    finally:
        browser.driver.quit()


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "web-ui.png")
    output = parser.parse_args().output
    browsers.SIZES["screenshot"] = WINDOW
    options = "--port 0 --no-browser --model scenes".split()
    command = [sys.executable, "-m", "deepfill_jax.app", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            url = server.stdout.readline().strip().rstrip("/")
            screenshot = take(url, Path(folder))
        finally:
            server.terminate()
    image = Image.open(io.BytesIO(screenshot)).convert("RGB")
    image.quantize(COLORS, dither=Image.Dither.NONE).save(output, optimize=True)
    print(f"{output}: {image.width}x{image.height}, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
