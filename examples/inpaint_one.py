"""Fills the hole of one photo.

python examples/inpaint_one.py PHOTO MASK RESULT.png [MODEL]

White in the mask is the hole. MODEL is the name or file of a model; without it, "scenes".
"""

import sys

from PIL import Image

from deepfill_jax import Inpainter

photo, mask, result, *model = sys.argv[1:]
inpainter = Inpainter.load(*model or ["scenes"])
Image.fromarray(inpainter(photo, mask)).save(result)
