"""Compares ways to complete large photographs, on holes whose content is known.

    pip install '.[train,scores]'
    python benchmarks/large_photos.py PHOTO [PHOTO ...] [--model scenes] [--rounds 2] [--sheet FILE]

PHOTO is an image file, or a folder that contains `PHOTOGRAPHS`: 24 photographs of 6 to 20
megapixels from wallpaper packages of Debian 13, with free licenses. On Debian 13:

    apt-get download lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 lxqt-themes budgie-backgrounds
    for package in *.deb; do dpkg-deb -x $package wallpapers; done
    python benchmarks/large_photos.py wallpapers --rounds 1

In each round, every photograph gets one hole, which is 200 to 900 pixels wide. Hole L1 is in
percent of the value range; LPIPS (AlexNet) is measured at full size in a square around the hole of
twice its width, as far as the photograph goes. Classical methods complete this square. The script
prints a Markdown table of means with standard errors, after a line for each hole.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from deepfill_jax import Inpainter, perceptual
from deepfill_jax.errors import UsageError, run_command
from deepfill_jax.image import to_float
from deepfill_jax.inpaint.boxes import Box, around
from deepfill_jax.inpaint.classical import BASELINES

PHOTOGRAPHS = {
    # lomiri-wallpapers-16.04 and -20.04
    *("Bridge_by_Sander_Klootwijk.jpg", "Dragonfly_by_Bolly.jpg", "Kleiber_by_Lukas_Baubkus.jpg"),
    *("Wine_by_Jakkub_Mede.jpg", "aitzgorri_by_Aitzol_Berasategi.jpg"),
    *("friends_by_Aitzol_Berasategi.jpg", "life_by_Aitzol_Berasategi.jpg"),
    *("picosdeeuropa_by_Aitzol_Berasategi.jpg", "seeding_by_Clements_Engelhardt.jpg"),
    "sunset_by_Aitzol_Berasategi.jpg",
    # lxqt-themes
    *("after-the-rain.jpg", "appleflower.png", "butterfly.png", "flowers.png"),
    # budgie-backgrounds
    *("beacon-street-sunset.jpg", "blue-periwinkle.jpg", "canyon-wren.jpg", "casa-mila.jpg"),
    *("extreme-desert-hike.jpg", "lake-sherburne.jpg", "oakland-zoo-otters.jpg"),
    *("perched-osprey.jpg", "roman-colosseum.jpg", "tea-gardens.jpg"),
}
WIDTHS = (200, 350, 500, 700, 900)  # Of the holes, in pixels.
CLASSICAL = ("telea", "patchmatch")
PANEL = 400  # Side of each image of the sheet, in pixels.


def find_photographs(path):
    """Returns an image file itself, or the files of `PHOTOGRAPHS` in a folder, sorted by name.

    Raises:
        UsageError: The folder lacks some of them.
    """
    if path.is_file():
        return [path]
    found = {file.name: file for file in path.rglob("*") if file.name in PHOTOGRAPHS}
    if missing := sorted(PHOTOGRAPHS - found.keys()):
        raise UsageError(f"{path} lacks {', '.join(missing)}; unpack the packages into it.")
    return [file for _, file in sorted(found.items())]


def blob(rng, shape, width):
    """Draws a blob with up to four bulges somewhere in the image; returns mask and bounding box."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    bulges, phase = rng.integers(2, 5), rng.uniform(0, 2 * np.pi)
    radii = width / 2 * (0.8 + 0.2 * np.sin(bulges * angles + phase))
    top, left = (int(rng.integers(0, side - width)) for side in shape)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] + width / 2
    mask = Image.new("L", shape[::-1])
    ImageDraw.Draw(mask).polygon([tuple(point + (left, top)) for point in points], fill=255)
    return np.asarray(mask) > 0, Box(top, left, width, width)


def network(inpainter, **options):
    """Returns a function of image, mask and square, which returns the completed image."""
    return lambda image, mask, _: inpainter(image, mask, **options)


def classical(name):
    """Returns such a function for a classical method, which completes the square."""

    def complete(image, mask, square):
        completed = image.copy()
        completed[square] = BASELINES[name](image[square], mask[square][..., None])
        return completed

    return complete


def methods(model):
    """Returns the methods by name."""
    inpainter = Inpainter.load(model)
    return {
        "crop, with detail": network(inpainter, strategy="crop"),
        "crop": network(inpainter, strategy="crop", detail=False),
        "crop, network's colors": network(inpainter, strategy="crop", detail=False, seamless=False),
        "resize": network(inpainter, strategy="resize", detail=False),
        **{name: classical(name) for name in CLASSICAL},
    }


def lpips() -> Callable[[np.ndarray, np.ndarray], float]:
    """Returns the mean LPIPS of pairs of images, uint8 [B, H, W, 3]."""
    params = perceptual.load("alexnet")

    def distance(a, b):
        pair = (jnp.asarray(to_float(x)) for x in (a, b))
        return float(perceptual.distance("alexnet", params, *pair).mean())

    return distance


def measure(complete, image, mask, square, distance, windows=None):
    """Returns hole L1, LPIPS and seconds of a method, and the completed image.

    LPIPS is the mean over windows of one size, by default the square alone.
    """
    began = time.perf_counter()
    completed = complete(image, mask, square)
    seconds = time.perf_counter() - began
    np.testing.assert_array_equal(completed[~mask], image[~mask])
    error = np.abs(completed[mask].astype(float) - image[mask]).mean() / 2.55
    pair = (np.stack([x[window] for window in windows or [square]]) for x in (completed, image))
    return (error, distance(*pair), seconds), completed


def panel(square):
    """Scales a square for the sheet."""
    return np.asarray(Image.fromarray(square).resize((PANEL, PANEL), Image.Resampling.LANCZOS))


def table(figures):
    """Yields the lines of the table of means ± standard errors by method."""
    yield "| method | hole L1, % | LPIPS, AlexNet | seconds |"
    yield "|---|---|---|---|"
    for name, rows in figures.items():
        mean = np.mean(rows, axis=0)
        error = np.std(rows, axis=0, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else mean * 0
        yield (
            f"| {name} | {mean[0]:.2f} ± {error[0]:.2f} | {mean[1]:.4f} ± {error[1]:.4f} "
            f"| {mean[2]:.2f} |"
        )


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--model", default="scenes")
    parser.add_argument("--rounds", type=int, default=2, help="holes per photograph")
    parser.add_argument("--sheet", type=Path, help="PNG file for the squares, a row for each hole")
    options = parser.parse_args(arguments)
    photos = [file for path in options.photos for file in find_photographs(path)]
    cases = [photo for _ in range(options.rounds) for photo in photos]
    completes, distance, rows = methods(options.model), lpips(), []
    figures = {name: [] for name in completes}
    for number, photo in enumerate(cases):
        image = np.asarray(Image.open(photo).convert("RGB"))
        width = min(WIDTHS[number % len(WIDTHS)], min(image.shape[:2]) // 2)
        mask, box = blob(np.random.default_rng(number), image.shape[:2], width)
        square = around(box, 2 * width, image.shape[:2]).slices
        shown = [panel(np.where(mask[..., None], np.uint8(127), image)[square])]
        for name, complete in completes.items():
            measured, completed = measure(complete, image, mask, square, distance)
            figures[name].append(measured)
            shown.append(panel(completed[square]))
        rows.append(np.concatenate([*shown, panel(image[square])], axis=1))
        line = "; ".join(f"{name} {x[-1][0]:.2f}, {x[-1][1]:.4f}" for name, x in figures.items())
        print(f"{photo.name}, {width} px: {line}", flush=True)
    print(*table(figures), sep="\n")
    if options.sheet:
        Image.fromarray(np.concatenate(rows)).save(options.sheet)


if __name__ == "__main__":
    run_command(main)
