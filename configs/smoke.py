"""A tiny network for a few steps: for tests, and to see in a minute whether a machine is set up.

    python -m deepfill_jax.main --config=configs/smoke.py --workdir=/tmp/smoke

with --config.data.source=folder:PATH and --config.data.val_source=folder:PATH.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
places = runpy.run_path(str(Path(__file__).with_name("places.py")))


def get_config(architecture: str = "mmagic") -> ConfigDict:
    """The values of configs/places.py but these."""
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
