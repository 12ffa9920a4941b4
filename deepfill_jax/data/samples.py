"""Photographs that scikit-image and scikit-learn carry, as folders for the demo.

    python -m deepfill_jax.data.samples FOLDER

FOLDER/images holds three photographs and FOLDER/masks their masks: an object to remove, scratches,
and a large hole. For fine-tuning, FOLDER/train holds the left part of a photograph of a brick wall,
and FOLDER/val crops of its right part.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data
from sklearn.datasets import load_sample_image

from deepfill_jax.errors import UsageError, run_command

CROP = 128  # Side in pixels of a validation image.
TRAINED = 320  # Columns of the wall to train on; the other 192 are for validation.
SIZE = 384, 256  # Width and height in pixels of an image with a mask: one compilation serves all.
SCRATCHES = (
    [(20, 30), (90, 70), (150, 120), (230, 150), (330, 215)],
    [(300, 10), (280, 80), (250, 140), (190, 250)],
    [(10, 190), (120, 180), (200, 215)],
)


def write(folder: str | Path) -> None:
    """Writes the folders; existing files are replaced."""
    folder = Path(folder)
    for name in ("images", "masks", "train", "val"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    wall = np.repeat(data.brick()[..., np.newaxis], 3, axis=-1)
    Image.fromarray(wall[:, :TRAINED]).save(folder / "train" / "wall.png")
    height, width = wall.shape[:2]
    for top in range(0, height - CROP + 1, CROP // 2):
        for left in range(TRAINED, width - CROP + 1, CROP // 4):
            crop = wall[top : top + CROP, left : left + CROP]
            Image.fromarray(crop).save(folder / "val" / f"wall_{top:03d}_{left:03d}.png")

    def rocket(draw: ImageDraw.ImageDraw) -> None:
        draw.rounded_rectangle((178, 70, 208, 243), 8, fill=255)

    def scratches(draw: ImageDraw.ImageDraw) -> None:
        for line in SCRATCHES:
            draw.line(line, fill=255, width=5, joint="curve")

    def blossom(draw: ImageDraw.ImageDraw) -> None:
        draw.ellipse((92, 40, 280, 226), fill=255)

    _write_pair(folder, "rocket", data.rocket(), rocket)
    _write_pair(folder, "cat", data.chelsea(), scratches)
    _write_pair(folder, "flower", load_sample_image("flower.jpg"), blossom)


def _write_pair(
    folder: Path, name: str, photo: np.ndarray, draw_hole: Callable[[ImageDraw.ImageDraw], None]
) -> None:
    """Writes a photograph, scaled to SIZE, and the mask of its hole."""
    image = Image.fromarray(photo).resize(SIZE, Image.Resampling.LANCZOS)
    mask = Image.new("L", SIZE, 0)
    draw_hole(ImageDraw.Draw(mask))
    image.save(folder / "images" / f"{name}.png")
    mask.save(folder / "masks" / f"{name}.png")


def main() -> None:
    """Reads the command line."""
    if len(sys.argv) != 2:
        raise UsageError("Usage: python -m deepfill_jax.data.samples FOLDER.")
    write(sys.argv[1])
    print(f"Photographs for the demo: {sys.argv[1]}")


if __name__ == "__main__":
    run_command(main)
