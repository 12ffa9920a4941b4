"""Draws docs/example.jpg: photographs with holes, and what the model "scenes" fills them with.

python docs/example.py
"""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from deepfill_jax import Inpainter, masks

PHOTOS = (data.astronaut, data.coffee, data.chelsea, data.rocket)  # Public domain, or CC0.
SIZE = 128  # That the model was trained at so far.


def main() -> None:
    """Writes the picture: holes in white above, results below."""
    inpainter = Inpainter.load("scenes")
    columns = []
    for seed, photo in enumerate(PHOTOS):
        image = Image.fromarray(photo())
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        image = image.crop((left, top, left + side, top + side))
        pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))
        mask = masks.brush_strokes(np.random.default_rng(seed), SIZE, SIZE)
        holes = np.where(mask > 0, np.uint8(255), pixels)
        columns.append(np.concatenate([holes, inpainter(pixels, 255 * mask)]))
    grid = np.concatenate(columns, axis=1)
    Image.fromarray(grid).save(Path(__file__).with_name("example.jpg"), quality=90)


if __name__ == "__main__":
    main()
