"""Inpaints one image.

python examples/inpaint_one.py IMAGE MASK RESULT.png [MODEL]

White pixels of the mask are the hole. MODEL is the name of a bundled model or a model file; the
default is "scenes".
"""

import sys

from PIL import Image

from deepfill_jax import Inpainter

image_file, mask_file, result_file, *model = sys.argv[1:]
inpainter = Inpainter.load(*model or ["scenes"])
Image.fromarray(inpainter(image_file, mask_file)).save(result_file)
