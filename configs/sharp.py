"""Sharp results: fine-tunes a bundled model with LPIPS and SN-PatchGAN, on two CPU cores.

    python -m deepfill_jax.main --config=configs/sharp.py:scenes --workdir=runs/sharp \
        --config.data.source=folder:PATH --config.data.val_source=folder:PATH

Under uncertainty, the minimum of an L1 loss is an average, which looks blurred. LPIPS with VGG16
penalises missing texture, and the discriminator penalises what looks unreal. Training uses 160 px
crops scaled to 128 px, close to the resolution of the photographs, because texture is a property of
their pixels; the network is convolutional and completes images of any size. Evaluation uses LPIPS
with AlexNet, because the generator is optimised against VGG16; with AlexNet in the loss instead,
1,400 steps left patterns of dots in smooth regions. `make train-bundled MODEL=scenes` runs this
config and keeps its state in a file.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# Loaded by path, because a config can be run from any folder.
best = runpy.run_path(str(Path(__file__).with_name("best.py")))

CROPS = {"scenes": 160, "faces": 178}  # Side in pixels of the crops that are scaled to 128 px.


def get_config(model: str = "scenes") -> ConfigDict:
    """Returns configs/best.py:128 with the changes below."""
    config = best["get_config"]("128")
    config.init_from = model
    config.num_steps = 100_000
    config.model.discriminator_width = 32
    config.loss.adversarial = 0.08
    config.loss.adversarial_ramp_steps = 200
    config.loss.perceptual = 2.0
    config.loss.perceptual_network = "vgg16"
    config.optimizer.learning_rate = 4e-4
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
