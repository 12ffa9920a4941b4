"""Makes the figures of the README and the model cards: inputs above, inpainting results below.

    python benchmarks/pictures.py [example faces scenes guided]

The photographs ship with scikit-image and are in the public domain or CC0, because the data sets'
photographs must not be published. The figures are written to docs/.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from deepfill_jax import Inpainter, masks

DOCS = Path(__file__).parents[1] / "docs"
PHOTOS = (data.astronaut, data.coffee, data.chelsea, data.rocket)
# Image sides in pixels, which are those of the models' last training stages.
SIZES = {"example": 256, "faces": 256, "scenes": 256, "guided": 128}
PANEL_SIZE = 256  # Side of each image in a figure, in pixels.
FACE = (112, 0, 332, 220)  # The astronaut's face, framed as faces are in the training images.

# Holes in the face, as (left, top, right, bottom) in 128ths: cheek and hair, mouth, an eye, all.
FACE_HOLES = ((84, 40, 112, 80), (48, 78, 86, 100), (68, 50, 92, 68), (36, 40, 96, 106))
# Holes in the photographs, in 128ths, that "scenes" can only fill by recognising the hidden object.
SCENE_HOLES = ((44, 16, 92, 64), (40, 52, 88, 100), (24, 40, 72, 88), (52, 32, 92, 72))

CHIN, HAIR = (38, 64, 94, 108), (84, 34, 124, 84)  # Holes for sketch-guided inpainting.
GUIDED = (
    (CHIN, []),
    (CHIN, [(42, 66), (50, 84), (57, 92), (64, 95), (71, 95), (78, 91), (84, 80), (90, 66)]),
    (HAIR, []),
    (HAIR, [(84, 36), (92, 40), (90, 60), (86, 84)]),
    (HAIR, [(104, 34), (110, 48), (108, 62), (98, 78), (92, 72), (92, 44)]),
)
LINE_WIDTH = 4  # In 128ths of the side; the edges in the training data are as thick.

Case = tuple[np.ndarray, np.ndarray, np.ndarray]  # Image, mask and sketch, uint8, 0 to 255.


def scaled(image: Image.Image, size: int) -> np.ndarray:
    """Returns the image's central square, scaled to uint8 [size, size, 3]."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def drawn(size: int, *, box: tuple = (), line: list = ()) -> np.ndarray:
    """Draws a filled box or a line, given in 128ths, in white on black, uint8 [size, size]."""
    canvas = Image.new("L", (size, size))
    draw, scale = ImageDraw.Draw(canvas), size / 128
    if box:
        left, top, right, bottom = (scale * x for x in box)
        draw.rectangle((left, top, right - 1, bottom - 1), fill=255)
    if line:
        points = [(scale * x, scale * y) for x, y in line]
        draw.line(points, fill=255, width=round(scale * LINE_WIDTH), joint="curve")
    return np.asarray(canvas)


def cases(name: str) -> Iterator[Case]:
    """Yields the cases that a figure shows."""
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
    """Draws a column for each case: the input with a white hole and blue sketch, and the result."""
    inpainter = Inpainter.load("scenes" if name == "example" else name)
    columns = []
    for pixels, mask, sketch in cases(name):
        mask = mask.reshape(sketch.shape)
        holes = np.where(mask[..., None] > 0, np.uint8(255), pixels)
        lines = (sketch > 0) & (mask > 0)
        holes = np.where(lines[..., None], np.uint8((0, 0, 255)), holes)
        options = {"sketch": sketch} if inpainter.guided else {}
        columns.append(np.concatenate([holes, inpainter(pixels, mask, **options)]))
    grid = Image.fromarray(np.concatenate(columns, axis=1))
    return grid.resize((PANEL_SIZE * len(columns), 2 * PANEL_SIZE), Image.Resampling.BICUBIC)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(SIZES))
    for name in parser.parse_args().names:
        draw(name).save(DOCS / f"{name}.jpg", quality=90)


if __name__ == "__main__":
    main()
