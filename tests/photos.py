"""Small pictures on disk for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path, count: int = 10, size: int = 40) -> Path:
    """Writes `count` smooth colour pictures and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    for i in range(count):
        a, b, c = rng.uniform(0, 255, (3, 1, 1, 3))
        picture = a + (b - a) * x[..., None] + (c - a) * y[..., None] * x[..., None]
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")
    return folder
