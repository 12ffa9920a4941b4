"""A training recipe for a few hours on two CPU cores: three stages of increasing image size.

    python -m deepfill_jax.main --config=configs/best.py:64 --workdir=runs/64 \
        --config.data.source=folder:PATH --config.data.val_source=folder:PATH
    python -m deepfill_jax.main --config=configs/best.py:128 --workdir=runs/128 \
        --config.init_from=runs/64 ...
    python -m deepfill_jax.main --config=configs/best.py:256 --workdir=runs/256 \
        --config.init_from=runs/128 ...

The number is the side of the images in pixels. A 64 px image has a sixteenth of the pixels of a
256 px image, and most of what the network has to learn is already visible in it. Differences from
the published recipe: half the width, half the batch size, variance-preserving initialisation, up to
twenty times the learning rate with warm-up and decay to 0, gradient clipping, an exponential moving
average of the parameters, horizontal flips, and no discriminator. Without a discriminator, results
are right on average, but blurred. docs/ablations.md lists the effect of each choice.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# Loaded by path, because a config can be run from any folder.
places = runpy.run_path(str(Path(__file__).with_name("places.py")))

# Number of steps and learning rate of each stage.
STAGES = {"64": (20_000, 2e-3), "128": (10_000, 1e-3), "256": (2_000, 7e-4)}


def get_config(stage: str = "64") -> ConfigDict:
    """Returns configs/places.py:official with the changes below."""
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
    # Warm-up takes the first twentieth of the steps; the average spans about the last twentieth.
    # These values follow an override of the number of steps.
    steps = config.get_oneway_ref("num_steps")
    config.optimizer.warmup_steps = steps // 20
    config.optimizer.decay_steps = steps
    # 1 - 20 / steps; the remainder keeps it from 0 to 1 in runs of fewer than 20 steps.
    config.ema_decay = ((steps - 20) % steps).to_float() / steps
    config.data.flip = True
    config.masks.weights.box_and_strokes = 0.4
    config.masks.weights.irregular = 0.6
    config.eval.num_examples = 200
    config.eval.every = 500
    config.checkpoint_every = 250
    return config
