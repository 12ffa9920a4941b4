"""Draws the pictures of README and model cards: holes above, below what a model fills them with.

    python docs/pictures.py [example faces scenes guided]

Photographs are of scikit-image, in the public domain or CC0: those of data sets must not be shown.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from deepfill_jax import Inpainter, masks

PHOTOS = (data.astronaut, data.coffee, data.chelsea, data.rocket)
SIZES = {"example": 256, "faces": 256, "scenes": 256, "guided": 128}  # The models' last stages.
SHOWN = 256  # Pixels of a side.
FACE = (112, 0, 332, 220)  # Of the astronaut, as faces lie in the training pictures.

# Holes of the face, in 128ths, left, top, right, bottom: cheek and hair, mouth, an eye, all of it.
FACE_HOLES = ((84, 40, 112, 80), (48, 78, 86, 100), (68, 50, 92, 68), (36, 40, 96, 106))
# Holes of the photographs in 128ths, where "scenes" has to know what it is that is hidden.
SCENE_HOLES = ((44, 16, 92, 64), (40, 52, 88, 100), (24, 40, 72, 88), (52, 32, 92, 72))

CHIN, HAIR = (38, 64, 94, 108), (84, 34, 124, 84)  # Holes that are filled by lines.
GUIDED = (
    (CHIN, []),
    (CHIN, [(42, 66), (50, 84), (57, 92), (64, 95), (71, 95), (78, 91), (84, 80), (90, 66)]),
    (HAIR, []),
    (HAIR, [(84, 36), (92, 40), (90, 60), (86, 84)]),
    (HAIR, [(104, 34), (110, 48), (108, 62), (98, 78), (92, 72), (92, 44)]),
)
LINE = 4  # As thick, in 128ths, as the edges are that the model learnt from.

Case = tuple[np.ndarray, np.ndarray, np.ndarray]  # Picture, mask and sketch, uint8, 0 to 255.


def scaled(image: Image.Image, size: int) -> np.ndarray:
    """The picture's middle square, uint8 [size, size, 3]."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def drawn(size: int, *, box: tuple = (), line: list = ()) -> np.ndarray:
    """A filled box or a line, given in 128ths, as white on black, uint8 [size, size]."""
    canvas = Image.new("L", (size, size))
    draw, scale = ImageDraw.Draw(canvas), size / 128
    if box:
        left, top, right, bottom = (scale * x for x in box)
        draw.rectangle((left, top, right - 1, bottom - 1), fill=255)
    if line:
        points = [(scale * x, scale * y) for x, y in line]
        draw.line(points, fill=255, width=round(scale * LINE), joint="curve")
    return np.asarray(canvas)


def cases(name: str) -> Iterator[Case]:
    """What a picture shows."""
    size = SIZES[name]
    none = drawn(size)
    photos = [scaled(Image.fromarray(photo()), size) for photo in PHOTOS]
    face = scaled(Image.fromarray(data.astronaut()).crop(FACE), size)
    if name == "example":
        for seed, photo in enumerate(photos):
            yield photo, 255 * masks.brush_strokes(np.random.default_rng(seed), size, size), none
    elif name == "faces":
        for box in FACE_HOLES:
            yield face, drawn(size, box=box), none
    elif name == "scenes":
        for photo, box in zip(photos, SCENE_HOLES, strict=True):
            yield photo, drawn(size, box=box), none
    elif name == "guided":
        for box, line in GUIDED:
            yield face, drawn(size, box=box), drawn(size, line=line)


def draw(name: str) -> Image.Image:
    """A column for each case: hole in white with the sketch in blue, and what fills it."""
    inpainter = Inpainter.load("scenes" if name == "example" else name)
    columns = []
    for pixels, mask, sketch in cases(name):
        mask = mask.reshape(sketch.shape)
        holes = np.where(mask[..., None] > 0, np.uint8(255), pixels)
        lines = (sketch > 0) & (mask > 0)
        holes = np.where(lines[..., None], np.uint8((0, 0, 255)), holes)
        given = {"sketch": sketch} if inpainter.guided else {}
        columns.append(np.concatenate([holes, inpainter(pixels, mask, **given)]))
    grid = Image.fromarray(np.concatenate(columns, axis=1))
    return grid.resize((SHOWN * len(columns), 2 * SHOWN), Image.Resampling.BICUBIC)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(SIZES))
    for name in parser.parse_args().names:
        draw(name).save(Path(__file__).with_name(f"{name}.jpg"), quality=90)


if __name__ == "__main__":
    main()
