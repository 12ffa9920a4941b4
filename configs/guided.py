r"""A small sketch-guided model of faces, trained on two CPU cores; the sketch is optional.

    python -m deepfill_jax.data.edges --source folder:FACES/train --output EDGES/train
    python -m deepfill_jax.data.edges --source folder:FACES/val --output EDGES/val
    python -m deepfill_jax.main --config=configs/guided.py --workdir=runs/guided \
        --config.data.source=folder:FACES/train --config.data.edges=folder:EDGES/train \
        --config.data.val_source=folder:FACES/val --config.data.val_edges=folder:EDGES/val

As in configs/faces.py, the architecture is the official one at half its width, and the only loss is
L1: results are blurred, and the sketch determines where things are. Half of the examples have a
sketch, so that one model works with and without one. --config.init_from=MODEL starts from an
unguided model of this width; at first, the guided model computes the same output as that model. The
authors train from scratch.

To score it with and without sketches, run --mode=eval with --config.data.sketch_probability=1 and
with --config.data.sketch_probability=0.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# Loaded by path, because a config can be run from any folder.
faces = runpy.run_path(str(Path(__file__).with_name("faces.py")))


def get_config() -> ConfigDict:
    """Returns configs/faces.py:128 with the changes below."""
    config = faces["get_config"]("128")
    config.model.guided = True
    config.data.edges = "folder:data/edges/train"
    config.data.val_edges = "folder:data/edges/val"
    config.data.sketch_probability = 0.5
    return config
