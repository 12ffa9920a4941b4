r"""Faces that are guided by lines, on two CPU cores: a small model that takes a sketch, or none.

    python -m deepfill_jax.data.edges --source folder:FACES/train --output EDGES/train
    python -m deepfill_jax.data.edges --source folder:FACES/val --output EDGES/val
    python -m deepfill_jax.main --config=configs/guided.py --workdir=runs/guided \
        --config.data.source=folder:FACES/train --config.data.edges=folder:EDGES/train \
        --config.data.val_source=folder:FACES/val --config.data.val_edges=folder:EDGES/val

As configs/faces.py, the official architecture at half its width and the L1 loss alone: fills are
blurred, and lines say where what is. Half of the examples have a sketch, so that one model fills
holes with lines and without. --config.init_from=MODEL starts from an unguided model of this width,
and computes what that one does until it has learnt to see lines; the authors train from scratch.

Its two scores: --mode=eval with --config.data.sketch_probability=1 and with
--config.data.sketch_probability=0.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
faces = runpy.run_path(str(Path(__file__).with_name("faces.py")))


def get_config() -> ConfigDict:
    """The values of configs/faces.py:128 but these."""
    config = faces["get_config"]("128")
    config.model.guided = True
    config.data.edges = "folder:data/edges/train"
    config.data.val_edges = "folder:data/edges/val"
    config.data.sketch_probability = 0.5
    return config
