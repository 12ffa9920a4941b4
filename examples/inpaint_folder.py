"""Inpaints all images of a folder in batches of eight.

python examples/inpaint_folder.py IMAGES MASKS RESULTS [MODEL]

MASKS holds one PNG per image, with the same name. The command `deepfill inpaint` does more: it
resumes an interrupted run and preserves file formats and metadata.
"""

import sys
from pathlib import Path

from PIL import Image

from deepfill_jax import Inpainter

images, masks, results = map(Path, sys.argv[1:4])
inpainter = Inpainter.load(*sys.argv[4:] or ["scenes"])
paths = sorted(images.iterdir())
results.mkdir(exist_ok=True)
for start in range(0, len(paths), 8):
    batch = paths[start : start + 8]
    completed = inpainter(batch, [masks / f"{path.stem}.png" for path in batch])
    for path, image in zip(batch, completed, strict=True):
        Image.fromarray(image).save(results / f"{path.stem}.png")
