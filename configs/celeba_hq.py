"""CelebA-HQ at 256 px with free-form masks.

    python -m deepfill_jax.main --config=configs/celeba_hq.py --workdir=runs/celeba_hq

The default source is CelebA-HQ as prepared by TFDS. To train on a folder of faces, add
--config.data.source=folder:PATH --config.data.val_source=folder:PATH

The settings are those of MMagic's `deepfillv2_8xb2_celeba-256x256`: configs/places.py with 20,000
steps on images that already have 256 px. MMagic published hole L1 5.411, PSNR 25.721 and SSIM
0.871, with masks drawn at random in each evaluation. `configs/celeba_hq.py:official` has the
settings of the TF1 release, which resizes aligned faces and does not crop them.

Cost: 320,000 images, at about 3 s per image on two CPU cores; configs/places.py covers GPUs.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

# Loaded by path, because a config can be run from any folder.
places = runpy.run_path(str(Path(__file__).with_name("places.py")))


def get_config(architecture: str = "mmagic") -> ConfigDict:
    """Returns configs/places.py with the changes below."""
    config = places["get_config"](architecture)
    config.num_steps = 20_000
    config.data.source = "tfds:celeb_a_hq/256:train[:28000]"
    config.data.val_source = "tfds:celeb_a_hq/256:train[28000:]"
    # The images have 256 px, so the crop of 384 px in MMagic's config takes the whole image.
    config.data.crop_size = 0
    config.data.enlarge = False
    config.eval.every = 1_000
    if architecture == "official":
        config.num_steps = 1_000_000
    return config
