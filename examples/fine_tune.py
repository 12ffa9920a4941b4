"""Fine-tunes a model on a folder of images; needs the `train` extra.

python examples/fine_tune.py IMAGES WORKDIR [--model faces] [--steps 300]

Rerunning the command resumes an interrupted run. `deepfill convert WORKDIR --output
mine.safetensors` writes the trained model to a model file.
"""

import argparse
from pathlib import Path

from deepfill_jax.config import load
from deepfill_jax.train import train

parser = argparse.ArgumentParser()
parser.add_argument("images", type=Path)
parser.add_argument("workdir", type=Path)
parser.add_argument("--model", default="faces")
parser.add_argument("--steps", type=int, default=300)
options = parser.parse_args()
config = load("faces:128")
config.init_from = options.model
config.data.source = config.data.val_source = f"folder:{options.images}"
config.num_steps = config.optimizer.decay_steps = options.steps
config.optimizer.warmup_steps = min(20, options.steps - 1)
train(config, options.workdir)
