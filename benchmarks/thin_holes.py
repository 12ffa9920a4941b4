"""Compares completions of thin holes with Telea's, on holes whose content is known.

    pip install '.[train,scores]'
    python benchmarks/thin_holes.py PHOTO [PHOTO ...] [--only KIND] [--crops FOLDER]

Each case has a kind of hole, a photograph (by number, modulo the number of photographs), and the
size to which larger photographs are scaled down. Hole L1 is in percent of the value range; LPIPS
(AlexNet) is the mean over the cells of a grid of 128 px that contain hole. The script prints a
Markdown table; it can also write the cell with the most hole of each case: the hole, each method,
and the photograph.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import large_photos
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deepfill_jax import Inpainter
from deepfill_jax.inpaint.boxes import Box, pooled

CELL = 128  # Side of the windows of LPIPS, in pixels.
QUOTE = "the quick brown fox jumps over the lazy dog "


class Case(NamedTuple):
    """A hole in a photograph."""

    kind: str
    photo: int
    megapixels: float
    draw: Callable  # Function of a drawing, its width and height, and a generator.
    rows: slice = slice(None)  # Part of the scaled photograph.


def squares(draw, width, height, rng):
    """Draws three squares of 20 px."""
    for _ in range(3):
        x, y = rng.integers(width - 20), rng.integers(height - 20)
        draw.rectangle((x, y, x + 19, y + 19), fill=255)


def stroke(draw, width, height, rng):
    """Draws a stroke 50 px thick."""
    x, y = rng.integers(width - 300), rng.integers(height - 50)
    draw.rounded_rectangle((x, y, x + 300, y + 50), 25, fill=255)


def specks(number):
    """Draws specks of 3 to 9 px."""

    def draw_specks(draw, width, height, rng):
        for _ in range(number):
            x, y, size = rng.integers(width - 9), rng.integers(height - 9), rng.integers(2, 9)
            draw.ellipse((x, y, x + size, y + size), fill=255)

    return draw_specks


def scratches(draw, width, height, rng):
    """Draws straight scratches of 2 to 5 px."""
    for _ in range(12):
        x, y, angle = rng.integers(width), rng.integers(height), rng.uniform(0, 6.3)
        end = x + width * 0.5 * np.cos(angle), y + width * 0.5 * np.sin(angle)
        draw.line((x, y, *end), fill=255, width=int(rng.integers(2, 6)))


def fence(draw, width, height, rng):
    """Draws crossing diagonals of 8 px."""
    for start in range(-height, width, 150):
        draw.line((start, 0, start + height, height), fill=255, width=8)
        draw.line((start + height, 0, start, height), fill=255, width=8)


def wires(draw, width, height, rng):
    """Draws five sagging wires of 5 px."""
    for _ in range(5):
        y = rng.integers(height)
        draw.line((0, y, width // 2, y + 30, width, y), fill=255, width=5)


def watermark(draw, width, height, rng):
    """Draws a word in a grid."""
    font = ImageFont.load_default(max(height // 20, 20))
    for y in range(0, height, height // 6):
        for x in range(0, width, width // 4):
            draw.text((x, y), "SAMPLE", fill=255, font=font)


def text(draw, width, height, rng):
    """Draws lines of text."""
    font = ImageFont.load_default(28)
    for y in range(10, height - 30, 60):
        draw.text((10, y), QUOTE * int(1 + width / 600), fill=255, font=font)


def disc_and_wire(draw, width, height, rng):
    """Draws a disc with a quarter of the height and a wire of 10 px."""
    left, top, side = width * 0.3, height * 0.3, height * 0.25
    draw.ellipse((left, top, left + side, top + side), fill=255)
    draw.line((0, height * 0.8, width, height * 0.7), fill=255, width=10)


CASES = (
    Case("3 squares, 20 px", 5, 0.3, squares),
    Case("3 squares, 20 px", 2, 0.3, squares),
    Case("3 squares, 20 px", 3, 0.3, squares),
    Case("3 squares, 20 px, panorama", 2, 5, squares, slice(1000, 1321)),
    Case("stroke, 50 px", 3, 1.5, stroke),
    Case("100 specks, 3 to 9 px", 2, 6, specks(100)),
    Case("1500 specks, 3 to 9 px", 0, 6, specks(1500)),
    Case("scratches, 2 to 5 px", 1, 2, scratches),
    Case("fence, 8 px", 2, 3, fence),
    Case("wires, 5 px", 4, 12, wires),
    Case("watermark", 3, 2, watermark),
    Case("text", 4, 1, text),
    Case("disc and wire", 0, 6, disc_and_wire),
)


def make(case, photos):
    """Returns the image, uint8 [H, W, 3], and the mask, bool [H, W], of a case."""
    image = Image.open(photos[case.photo % len(photos)]).convert("RGB")
    scale = min(case.megapixels * 1e6 / (image.width * image.height), 1) ** 0.5
    size = round(image.width * scale), round(image.height * scale)
    image = np.asarray(image.resize(size, Image.Resampling.LANCZOS))[case.rows]
    height, width = image.shape[:2]
    mask = Image.new("L", (width, height))
    case.draw(ImageDraw.Draw(mask), width, height, np.random.default_rng(0))
    return image, np.asarray(mask) > 127


def cells(mask):
    """Returns the slices of the cells that contain hole, the one with the most hole first."""
    whole = mask[: mask.shape[0] // CELL * CELL, : mask.shape[1] // CELL * CELL, None]
    corners = CELL * np.argwhere(pooled(whole, CELL, whole=False))
    windows = [Box(int(top), int(left), CELL, CELL).slices for top, left in corners]
    return sorted(windows, key=lambda window: -mask[window].sum())


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--model", default="scenes")
    parser.add_argument("--only", default="", metavar="KIND", help="part of the name of a kind")
    parser.add_argument("--crops", type=Path, metavar="FOLDER", help="folder for PNG files")
    options = parser.parse_args(arguments)
    inpainter, distance = Inpainter.load(options.model), large_photos.lpips()
    methods = {
        "default": large_photos.network(inpainter),
        "network's colors": large_photos.network(inpainter, seamless=False),
        "telea": large_photos.classical("telea"),
    }
    figures = ("hole L1, %", "LPIPS", "s")
    print("| hole | MP |", " | ".join(f"{f}: {m}" for f in figures for m in methods), "|")
    print("|---|---" + "|---" * 3 * len(methods) + "|")
    for number, case in enumerate(CASES):
        if options.only not in case.kind:
            continue
        image, mask = make(case, options.photos)
        windows, whole = cells(mask), (slice(None), slice(None))
        shown = [np.where(mask[..., None], np.uint8(127), image)[windows[0]]]
        rows = []
        for complete in methods.values():
            row, completed = large_photos.measure(complete, image, mask, whole, distance, windows)
            rows.append([f"{row[0]:.2f}", f"{row[1]:.4f}", f"{row[2]:.1f}"])
            shown.append(completed[windows[0]])
        values = np.transpose(rows).ravel()
        print(f"| {case.kind} | {case.megapixels} |", " | ".join(values), "|", flush=True)
        if options.crops:
            options.crops.mkdir(parents=True, exist_ok=True)
            strip = Image.fromarray(np.concatenate([*shown, image[windows[0]]], axis=1))
            strip.resize((3 * strip.width, 3 * strip.height), Image.Resampling.NEAREST).save(
                options.crops / f"{number:02} {case.kind}.png"
            )


if __name__ == "__main__":
    main()
