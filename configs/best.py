"""A recipe for hours of two CPU cores instead of weeks of GPUs, in three stages of growing images.

    python -m deepfill_jax.main --config=configs/best.py:64 --workdir=runs/64 \
        --config.data.source=folder:PATH --config.data.val_source=folder:PATH
    python -m deepfill_jax.main --config=configs/best.py:128 --workdir=runs/128 \
        --config.init_from=runs/64 ...
    python -m deepfill_jax.main --config=configs/best.py:256 --workdir=runs/256 \
        --config.init_from=runs/128 ...

The number is the side of the images. One of 64 px has a sixteenth of the pixels of one of 256, and
most of what is to learn shows in it. Against the published recipe: half the width, half the batch,
kernels that keep the variance, up to twenty times the learning rate with warm-up and a fall to 0,
gradients clipped, the running average of the parameters, pictures mirrored, and no discriminator:
fills are right on average, and blurred. docs/ablations.md has what each choice is worth.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
places = runpy.run_path(str(Path(__file__).with_name("places.py")))

# Of each stage: steps, learning rate.
STAGES = {"64": (20_000, 2e-3), "128": (10_000, 1e-3), "256": (2_000, 7e-4)}


def get_config(stage: str = "64") -> ConfigDict:
    """The values of configs/places.py:official but these."""
    config = places["get_config"]("official")
    config.image_size = int(stage)
    config.batch_size = 8
    config.num_steps, config.optimizer.learning_rate = STAGES[stage]
    config.model.width = 12
    config.model.discriminator_width = 16
    config.model.init = "unit_variance"
    config.loss.adversarial = 0.0
    config.optimizer.beta1 = 0.9
    config.optimizer.clip_norm = 1.0
    # The first twentieth of the steps is for the warm-up, the last is averaged.
    config.optimizer.warmup_steps = config.num_steps // 20
    config.optimizer.decay_steps = config.num_steps
    config.ema_decay = 1 - 20 / config.num_steps
    config.data.flip = True
    config.masks.weights.box_and_strokes = 0.4
    config.masks.weights.irregular = 0.6
    config.eval.num_examples = 200
    config.eval.every = 500
    config.checkpoint_every = 250
    return config
