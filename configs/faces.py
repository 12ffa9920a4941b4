"""Aligned faces on two CPU cores, in three stages; the card of "faces" says how far it came.

    python -m deepfill_jax.main --config=configs/faces.py:64 --workdir=runs/faces64
    python -m deepfill_jax.main --config=configs/faces.py:128 --workdir=runs/faces128 \
        --config.init_from=runs/faces64
    python -m deepfill_jax.main --config=configs/faces.py:256 --workdir=runs/faces256 \
        --config.init_from=runs/faces128

Each with --config.data.source=folder:PATH --config.data.val_source=folder:PATH, CelebA's aligned
faces of 178x218 pixels. The number is the side of the images. An image of 64 px has a sixteenth of
the pixels of one of 256, and most of what is to learn, where eyes are and how skin is lit, shows.

The official architecture at half its width, masks as the published tables have them mixed with the
paper's boxes and strokes, L1 loss alone, and the running average of the parameters.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
demo = runpy.run_path(str(Path(__file__).with_name("demo.py")))

# Of each stage: images a batch, steps, learning rate, steps over which that falls to 0 (0: never).
STAGES = {
    "64": (16, 10_000, 1e-3, 0),
    "128": (16, 5_000, 1e-3, 0),
    "256": (8, 2_000, 5e-4, 2_000),
}


def get_config(stage: str = "64") -> ConfigDict:
    """The values of configs/demo.py but these."""
    config = demo["get_config"]()
    config.image_size = int(stage)
    config.batch_size, config.num_steps, rate, decay = STAGES[stage]
    config.optimizer.learning_rate = rate
    config.optimizer.decay_steps = decay
    config.optimizer.warmup_steps = 200
    config.average_decay = 0.999
    config.data.source = "folder:data/faces/train"
    config.data.val_source = "folder:data/faces/val"
    config.data.crop_size = 178
    config.masks.kinds.box_or_strokes = 0.4
    config.masks.kinds.irregular = 0.6
    config.eval.num_examples = 200
    config.eval.every = 500
    config.log_every = 100
    config.checkpoint_every = 250
    return config
