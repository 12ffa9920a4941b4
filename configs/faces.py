"""Aligned faces, by the recipe of configs/best.py; the model card of "faces" has its scores.

    python -m deepfill_jax.main --config=configs/faces.py:64 --workdir=runs/faces64
    python -m deepfill_jax.main --config=configs/faces.py:128 --workdir=runs/faces128 \
        --config.init_from=runs/faces64
    python -m deepfill_jax.main --config=configs/faces.py:256 --workdir=runs/faces256 \
        --config.init_from=runs/faces128

Each command also needs --config.data.source=folder:PATH and --config.data.val_source=folder:PATH.
The bundled model was trained on CelebA's aligned faces of 178x218 pixels.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# Loaded by path, because a config can be run from any folder.
best = runpy.run_path(str(Path(__file__).with_name("best.py")))


def get_config(stage: str = "64") -> ConfigDict:
    """Returns configs/best.py with the changes below."""
    config = best["get_config"](stage)
    config.data.source = "folder:data/faces/train"
    config.data.val_source = "folder:data/faces/val"
    config.data.crop_size = 178
    return config
