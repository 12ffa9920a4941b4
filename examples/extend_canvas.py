"""Extends a photo by some pixels on each side: outpainting.

python examples/extend_canvas.py PHOTO PIXELS RESULT.png [MODEL]
"""

import sys

import numpy as np
from PIL import Image

from deepfill_jax import Inpainter
from deepfill_jax.inpaint.canvas import extend

photo, by, result, *model = sys.argv[1:]
pixels = np.asarray(Image.open(photo).convert("RGB"))
extended, mask = extend(pixels, *[int(by)] * 4)
inpainter = Inpainter.load(*model or ["scenes"])
Image.fromarray(inpainter(extended, mask)).save(result)
