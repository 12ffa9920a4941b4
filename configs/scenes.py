"""Scenes on two CPU cores, by configs/best.py; see the card of "scenes".

    python -m deepfill_jax.main --config=configs/scenes.py:256 --workdir=runs/scenes \
        --config.init_from=faces

with --config.data.source and val_source, folders of photographs of about 300 to 500 pixels a side.
It starts from faces, which have taught the network to continue edges and shading.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
best = runpy.run_path(str(Path(__file__).with_name("best.py")))


def get_config(stage: str = "256") -> ConfigDict:
    """The values of configs/best.py but these."""
    config = best["get_config"](stage)
    config.data.source = "folder:data/scenes/train"
    config.data.val_source = "folder:data/scenes/val"
    config.data.crop_size = 288
    return config
