"""Photographs that scikit-image and scikit-learn carry, as folders for the demo.

    python -m deepfill_jax.data.samples FOLDER

writes FOLDER/train, FOLDER/val, which holds crops of one photograph that is not in train, and
FOLDER/photo.png with FOLDER/photo_mask.png, that photograph at half its size and holes to fill.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

from deepfill_jax import masks
from deepfill_jax.errors import UsageError, run_command

TRAINING = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina")
CROP = 128  # Pixels of a validation picture's side.
TILE = 64  # Pixels of the demo's training images.


def write(folder: str | Path) -> None:
    """Writes the folders; files that are there already are written again."""
    folder = Path(folder)
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "val").mkdir(exist_ok=True)
    for name in TRAINING:
        Image.fromarray(getattr(data, name)()).save(folder / "train" / f"{name}.png")
    left, right, _ = data.stereo_motorcycle()
    Image.fromarray(left).save(folder / "train" / "motorcycle.png")
    Image.fromarray(load_sample_image("flower.jpg")).save(folder / "train" / "flower.png")

    photo = load_sample_image("china.jpg")
    height, width = photo.shape[:2]
    for top in range(0, height - CROP + 1, CROP // 2):
        for left in range(0, width - CROP + 1, CROP // 2):
            crop = photo[top : top + CROP, left : left + CROP]
            Image.fromarray(crop).save(folder / "val" / f"china_{top:03d}_{left:03d}.png")
    small = Image.fromarray(photo).resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    small.save(folder / "photo.png")
    Image.fromarray(255 * _holes(height // 2, width // 2)).save(folder / "photo_mask.png")


def _holes(height: int, width: int) -> np.ndarray:
    """Brush strokes in every other tile: holes of the size that the demo's network trains on."""
    mask = np.zeros((height, width), np.uint8)
    for row in range(height // TILE):
        for column in range(row % 2, width // TILE, 2):
            rng = np.random.default_rng([row, column])
            tile = masks.brush_strokes(rng, TILE, TILE)[..., 0]
            mask[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = tile
    return mask


def main() -> None:
    """Reads the command line."""
    if len(sys.argv) != 2:
        raise UsageError("Usage: python -m deepfill_jax.data.samples FOLDER.")
    write(sys.argv[1])
    print(f"Photographs for the demo: {sys.argv[1]}")


if __name__ == "__main__":
    run_command(main)
