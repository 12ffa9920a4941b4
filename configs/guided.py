r"""Faces that are guided by lines, on two CPU cores: a small model that takes a sketch, or none.

    python -m deepfill_jax.data.edges --source folder:FACES/train --output EDGES/train
    python -m deepfill_jax.data.edges --source folder:FACES/val --output EDGES/val
    python -m deepfill_jax.main --config=configs/guided.py --workdir=runs/guided \
        --config.data.source=folder:FACES/train --config.data.edges=folder:EDGES/train \
        --config.data.val_source=folder:FACES/val --config.data.val_edges=folder:EDGES/val

As configs/demo.py, the official architecture at half its width and the L1 loss alone: fills are
blurred, and lines say where what is. Half of the examples have a sketch, so that one model fills
holes with lines and without. --config.init_from=MODEL starts from an unguided model of this width,
and computes what that one does until it has learnt to see lines; the authors train from scratch.

Its two scores: --mode=eval with --config.data.edge_share=1 and with --config.data.edge_share=0.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
demo = runpy.run_path(str(Path(__file__).with_name("demo.py")))


def get_config() -> ConfigDict:
    """The values of configs/demo.py but these."""
    config = demo["get_config"]()
    config.image_size = 128
    config.num_steps = 20_000
    config.model.guided = True
    config.optimizer.warmup_steps = 200
    config.optimizer.decay_steps = 20_000
    config.average_decay = 0.999
    config.data.source = "folder:faces/train"
    config.data.val_source = "folder:faces/val"
    config.data.edges = "folder:edges/train"
    config.data.val_edges = "folder:edges/val"
    config.data.edge_share = 0.5
    config.data.crop_size = 178
    config.eval.num_examples = 256
    config.eval.every = 1_000
    config.log_every = 100
    config.checkpoint_every = 500
    return config
