"""Sharp completions: a bundled model trained on with LPIPS and SN-PatchGAN, on two CPU cores.

    python -m deepfill_jax.main --config=configs/sharp.py:scenes --workdir=runs/sharp \
        --config.data.source=folder:PATH --config.data.val_source=folder:PATH

The L1 loss alone answers doubt with a mean, which is blur. Here LPIPS by AlexNet says what texture
is missing, and a discriminator what looks wrong. It trains on crops of 160 px at 128 px, close to
the resolution of the photographs, because texture lies in their pixels; the network is
convolutional and completes images of any size. Scores are by VGG16, because the generator learns to
please AlexNet. `make train-bundled MODEL=scenes` runs it and keeps its state in a file.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
best = runpy.run_path(str(Path(__file__).with_name("best.py")))

CROPS = {"scenes": 160, "faces": 178}  # Side in pixels of what is scaled to 128 px.


def get_config(model: str = "scenes") -> ConfigDict:
    """The values of configs/best.py:128 but these."""
    config = best["get_config"]("128")
    config.init_from = model
    config.num_steps = 100_000
    config.model.discriminator_width = 32
    config.loss.adversarial = 0.08
    config.loss.adversarial_ramp_steps = 200
    config.loss.perceptual = 3.0
    config.optimizer.learning_rate = 6e-4
    config.discriminator_optimizer.learning_rate = 4e-4
    config.optimizer.beta1 = 0.5
    config.optimizer.beta2 = 0.9
    config.optimizer.warmup_steps = 50
    config.optimizer.decay_steps = 0
    config.ema_decay = 0.999
    config.data.source = f"folder:data/{model}/train"
    config.data.val_source = f"folder:data/{model}/val"
    config.data.crop_size = CROPS[model]
    config.masks.weights.box = 0.2
    config.masks.weights.box_and_strokes = 0.2
    config.masks.weights.irregular = 0.6
    config.eval.num_examples = 64
    config.eval.every = 500
    config.checkpoint_every = 200
    config.log_every = 20
    return config
