"""A few minutes on two CPU cores, on photographs that Python packages carry: `make demo`.

    python -m deepfill_jax.data.samples demo/photos
    python -m deepfill_jax.main --config=configs/demo.py --workdir=demo/run

The official architecture at half its width, 64 px crops, boxes joined with brush strokes, and no
discriminator: the L1 loss alone teaches colours and edges within minutes, blurred. It shows that
everything works, not what the method can do.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
best = runpy.run_path(str(Path(__file__).with_name("best.py")))


def get_config() -> ConfigDict:
    """The values of configs/best.py:64 but these."""
    config = best["get_config"]("64")
    config.num_steps = 300
    config.optimizer.warmup_steps = 20
    config.optimizer.decay_steps = 300
    config.ema_decay = 0.98
    config.data.source = "folder:demo/photos/train"
    config.data.val_source = "folder:demo/photos/val"
    config.data.crop_size = 128
    config.masks.weights.box_and_strokes = 1.0
    config.masks.weights.irregular = 0.0
    config.eval.num_examples = 64
    config.eval.every = 100
    config.log_every = 25
    config.checkpoint_every = 100
    config.keep_latest = 1
    return config
