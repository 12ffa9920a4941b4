"""Blind comparison of methods: sheets without names, and the table of the choices made on them.

    pip install '.[train]'
    python benchmarks/blind_look.py make PHOTOS SHEETS [--methods scenes,patchmatch,...] [--seed 0]
    python benchmarks/blind_look.py count SHEETS CHOICES

`make` takes 24 evenly spaced photographs of the folder PHOTOS and cuts a hole into each:
alternately a smooth blob, like the outline of an object, and a box, with sides of 15 to 30 % of the
image's. Each method completes the photographs as `deepfill inpaint` does. A row of a sheet shows
the hole and the completions in random order, labelled A, B, C, D. SHEETS/orders.json stores the
orders; do not open it before you have chosen.

CHOICES is a JSON list with one string per row: the letter of the best completion, or of all that
are level. `count` adds the names, and prints how often each method is first alone or level; it
writes them to results/blind_look.json, without the photographs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deepfill_jax import Inpainter

RESULTS = Path(__file__).parent / "results" / "blind_look.json"
METHODS = ("scenes", "patchmatch", "telea", "biharmonic")
LETTERS = "ABCD"
PHOTOS = 24
ROWS = 4  # Rows of a sheet.
SIDE = 300  # Side of a picture on the sheet, in pixels.
GREY = 128


def blob(width, height, rng):
    """Returns a mask, bool [height, width], with a smooth closed curve, at most 15 to 30 % wide."""
    extent = rng.uniform(0.15, 0.3) * min(width, height) / 2
    x, y = rng.uniform(extent, width - extent), rng.uniform(extent, height - extent)
    angles = np.linspace(0, 2 * np.pi, 200)
    radius = sum(
        rng.uniform(-0.3, 0.3) / order * np.cos(order * angles + rng.uniform(0, 6.3))
        for order in (1, 2, 3, 4)
    )
    radius = extent * (1 + radius) / (1 + radius).max()
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], -1)
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in points], fill=255)
    return np.asarray(mask) > 0


def box(width, height, rng):
    """Returns a mask, bool [height, width], with a box of sides of 15 to 30 % of the image's."""
    sides = (rng.uniform(0.15, 0.3, 2) * (height, width)).astype(int)
    top, left = rng.integers((height, width) - sides)
    mask = np.zeros((height, width), bool)
    mask[top : top + sides[0], left : left + sides[1]] = True
    return mask


def around(mask):
    """Returns the corners of a square around the hole, with as much context as hole."""
    rows, columns = np.nonzero(mask)
    side = min(2 * max(np.ptp(rows), np.ptp(columns)), *mask.shape)
    corner = [
        np.clip(int(span.min() + span.max() - side) // 2, 0, size - side)
        for span, size in zip((rows, columns), mask.shape, strict=True)
    ]
    return (corner[1], corner[0], corner[1] + side, corner[0] + side)


def make(photos, sheets, methods, seed):
    """Writes the sheets and the orders of the methods."""
    paths = sorted(path for path in photos.iterdir() if path.suffix in (".jpg", ".png"))
    paths = [paths[index] for index in np.linspace(0, len(paths) - 1, PHOTOS).astype(int)]
    inpainters = {name: Inpainter.load(name) for name in methods}
    rng, chance = np.random.default_rng(seed), np.random.default_rng()
    rows, orders = [], []
    for index, path in enumerate(paths):
        image = np.asarray(Image.open(path).convert("RGB"))
        mask = (blob if index % 2 == 0 else box)(image.shape[1], image.shape[0], rng)
        order = chance.permutation(methods).tolist()
        pictures = [np.where(mask[..., None], np.uint8(GREY), image)]
        pictures += [np.asarray(inpainters[name](image, mask)) for name in order]
        views = [Image.fromarray(picture).crop(around(mask)) for picture in pictures]
        rows.append([view.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for view in views])
        orders.append(order)
    sheets.mkdir(parents=True, exist_ok=True)
    for first in range(0, PHOTOS, ROWS):
        sheet(rows[first : first + ROWS], first).save(sheets / f"{first // ROWS}.png")
    (sheets / "orders.json").write_text(json.dumps(orders))


def sheet(rows, first):
    """Returns a picture of some rows, the first of which has the number `first`."""
    picture = Image.new("RGB", (SIDE * len(rows[0]), SIDE * len(rows)))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(20)
    for row, views in enumerate(rows):
        for column, view in enumerate(views):
            picture.paste(view, (column * SIDE, row * SIDE))
            label = LETTERS[column - 1] if column else str(first + row)
            draw.text((column * SIDE + 4, row * SIDE + 2), label, "white", font, stroke_width=2,
                      stroke_fill="black")  # fmt: skip
    return picture


def count(sheets, choices):
    """Returns the names chosen for each row, and the counts of each method."""
    orders = json.loads((sheets / "orders.json").read_text())
    letters = json.loads(choices.read_text())
    named = [
        sorted(order[LETTERS.index(letter)] for letter in chosen)
        for order, chosen in zip(orders, letters, strict=True)
    ]
    counts = {
        method: {
            "first alone": sum(names == [method] for names in named),
            "first or level": sum(method in names for names in named),
        }
        for method in sorted(orders[0])
    }
    return {"chosen": named, "counts": counts}


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("photos", type=Path)
    maker.add_argument("sheets", type=Path)
    maker.add_argument("--methods", default=",".join(METHODS), help="comma-separated names")
    maker.add_argument("--seed", type=int, default=0, help="of the holes (default: %(default)s)")
    counter = commands.add_parser("count")
    counter.add_argument("sheets", type=Path)
    counter.add_argument("choices", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "make":
        make(options.photos, options.sheets, options.methods.split(","), options.seed)
        return
    result = count(options.sheets, options.choices)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["counts"], indent=1))


if __name__ == "__main__":
    main()
