"""Outpaints an image: extends it by the given number of pixels on each side.

python examples/extend_canvas.py IMAGE PIXELS RESULT.png [MODEL]
"""

import sys

import numpy as np
from PIL import Image

from deepfill_jax import Inpainter
from deepfill_jax.inpaint.canvas import extend

image_file, margin, result_file, *model = sys.argv[1:]
image = np.asarray(Image.open(image_file).convert("RGB"))
extended, mask = extend(image, *[int(margin)] * 4)
inpainter = Inpainter.load(*model or ["scenes"])
Image.fromarray(inpainter(extended, mask)).save(result_file)
