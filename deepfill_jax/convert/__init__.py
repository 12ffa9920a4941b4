"""Conversion of other implementations' published weights to our parameter tree and back.

One table per source maps its layers to ours, and `layout` applies it. `sources.read` chooses the
reader for any supported file or folder.
"""

MODEL_HELP = (
    "name of a bundled or published model (`deepfill models` lists them), https:// or hf:// "
    "address, model file (.safetensors), folder of a training run, .pth file of MMagic or "
    "nipponjo, or TF1 checkpoint (prefix or folder)"
)
