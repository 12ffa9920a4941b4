"""Scenes, by the recipe of configs/best.py on two CPU cores; see the model card of "scenes".

    python -m deepfill_jax.main --config=configs/scenes.py:256 --workdir=runs/scenes \
        --config.init_from=faces

The command also needs --config.data.source and --config.data.val_source, folders of photographs
with sides of about 300 to 500 pixels. Training starts from the model "faces", which has already
learnt to continue edges and shading.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# Loaded by path, because a config can be run from any folder.
best = runpy.run_path(str(Path(__file__).with_name("best.py")))


def get_config(stage: str = "256") -> ConfigDict:
    """Returns configs/best.py with the changes below."""
    config = best["get_config"](stage)
    config.data.source = "folder:data/scenes/train"
    config.data.val_source = "folder:data/scenes/val"
    config.data.crop_size = 288
    return config
