"""Two minutes of training on two CPU cores, from the bundled model `scenes`: `make demo`.

    python -m deepfill_jax.data.samples demo/photos
    python -m deepfill_jax.main --config=configs/demo.py --workdir=demo/run

It fine-tunes on a part of one photograph of a brick wall with the L1 loss alone, and validates on
crops of the rest. Fine-tuning pays where photographs are alike: the joints between the bricks,
which the bundled model interrupts, continue through the holes afterwards. Training from random
weights: configs/best.py.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# Loaded by path, because a config can be run from any folder.
best = runpy.run_path(str(Path(__file__).with_name("best.py")))


def get_config() -> ConfigDict:
    """Returns configs/best.py:128 with the changes below."""
    config = best["get_config"]("128")
    config.init_from = "scenes"
    config.num_steps = 120  # The learning rate decays to 0 over them, as in configs/best.py.
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = config.get_oneway_ref("num_steps") // 15
    config.ema_decay = 0.9
    config.data.source = "folder:demo/photos/train"
    config.data.val_source = "folder:demo/photos/val"
    config.data.crop_size = 160
    config.masks.weights.box_and_strokes = 1.0
    config.masks.weights.irregular = 0.0
    config.eval.num_examples = 21
    config.eval.every = 40
    config.eval.seamless = True
    config.log_every = 10
    config.checkpoint_every = 40
    config.keep_latest = 1
    return config
