"""Inpainting of images of any size: the API `Inpainter` and the command `deepfill inpaint`."""
