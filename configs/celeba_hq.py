"""CelebA-HQ at 256 px with free-form masks.

    python -m deepfill_jax.main --config=configs/celeba_hq.py --workdir=runs/celeba_hq

Reads CelebA-HQ as TFDS prepared it. For a folder of faces:
--config.data.source=folder:PATH --config.data.val_source=folder:PATH

Mirrors MMagic's `deepfillv2_8xb2_celeba-256x256`: as configs/places.py, with 20,000 steps on
pictures that are 256 px already. Published, on masks drawn anew each time: hole L1 5.411, PSNR
25.721, SSIM 0.871. `configs/celeba_hq.py:official` mirrors the TF1 release, which resizes aligned
faces and does not crop them.

Cost: 320,000 images, about 3 s for each on two CPU cores; for GPUs see configs/places.py.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# By its path, because a config is read from any folder.
places = runpy.run_path(str(Path(__file__).with_name("places.py")))


def get_config(architecture: str = "mmagic") -> ConfigDict:
    """The values of configs/places.py but these."""
    config = places["get_config"](architecture)
    config.num_steps = 20_000
    config.data.source = "tfds:celeb_a_hq/256:train[:28000]"
    config.data.val_source = "tfds:celeb_a_hq/256:train[28000:]"
    config.eval.every = 1_000
    if architecture == "official":
        config.num_steps = 1_000_000
        config.data.crop_size = 0
        config.data.enlarge = False
    return config
