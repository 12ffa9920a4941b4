"""A tiny network trained for a few steps: for tests, and to check a machine's set-up in a minute.

    python -m deepfill_jax.main --config=configs/smoke.py --workdir=/tmp/smoke

The command also needs --config.data.source=folder:PATH and --config.data.val_source=folder:PATH.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# Loaded by path, because a config can be run from any folder.
places = runpy.run_path(str(Path(__file__).with_name("places.py")))


def get_config(architecture: str = "mmagic") -> ConfigDict:
    """Returns configs/places.py with the changes below."""
    config = places["get_config"](architecture)
    config.image_size = 32
    config.batch_size = 4
    config.num_steps = 4
    config.model.width = 2
    config.model.discriminator_width = 2
    config.data.crop_size = 0
    config.data.enlarge = False
    config.eval.batch_size = 4
    config.eval.num_examples = 6
    config.eval.every = 2
    config.log_every = 1
    config.checkpoint_every = 2
    return config
