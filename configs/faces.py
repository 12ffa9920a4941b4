"""Aligned faces, by configs/best.py; the card of "faces" says how far it came.

    python -m deepfill_jax.main --config=configs/faces.py:64 --workdir=runs/faces64
    python -m deepfill_jax.main --config=configs/faces.py:128 --workdir=runs/faces128 \
        --config.init_from=runs/faces64
    python -m deepfill_jax.main --config=configs/faces.py:256 --workdir=runs/faces256 \
        --config.init_from=runs/faces128

Each with --config.data.source=folder:PATH --config.data.val_source=folder:PATH, CelebA's aligned
faces of 178x218 pixels.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
best = runpy.run_path(str(Path(__file__).with_name("best.py")))


def get_config(stage: str = "64") -> ConfigDict:
    """The values of configs/best.py but these."""
    config = best["get_config"](stage)
    config.data.source = "folder:data/faces/train"
    config.data.val_source = "folder:data/faces/val"
    config.data.crop_size = 178
    return config
