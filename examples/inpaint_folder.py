"""Fills the holes of all photos of a folder, eight at a time.

python examples/inpaint_folder.py PHOTOS MASKS RESULTS [MODEL]

MASKS holds a PNG of the same name for each photo. `deepfill inpaint` does the same with much more:
it goes on where it was stopped, and keeps formats and metadata.
"""

import sys
from pathlib import Path

from PIL import Image

from deepfill_jax import Inpainter

photos, masks, results = map(Path, sys.argv[1:4])
inpainter = Inpainter.load(*sys.argv[4:] or ["scenes"])
paths = sorted(photos.iterdir())
results.mkdir(exist_ok=True)
for start in range(0, len(paths), 8):
    batch = paths[start : start + 8]
    completed = inpainter(batch, [masks / f"{path.stem}.png" for path in batch])
    for path, pixels in zip(batch, completed, strict=True):
        Image.fromarray(pixels).save(results / f"{path.stem}.png")
