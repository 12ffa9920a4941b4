"""The data loader and masks of nipponjo/deepfillv2-pytorch; the argument is the path of a clone.

The settings are those of its `train.py` and `configs/train-places.yaml`, but with one worker per
core, where the config has none. The main process draws one mask per batch while the workers load.
"""

import sys
from pathlib import Path

import torch


def batches(photos, cores, batch_size, clone):
    sys.path.insert(0, clone)
    from utils import misc
    from utils.data import ImageDataset

    config = misc.get_config(Path(clone, "configs/train-places.yaml"))
    pictures = ImageDataset(
        photos,
        img_shape=config.img_shapes,
        random_crop=config.random_crop,
        scan_subdirs=config.scan_subdirs,
    )
    loader = torch.utils.data.DataLoader(
        # Many epochs are joined into one, because the workers restart after each epoch.
        torch.utils.data.ConcatDataset([pictures] * 1000),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=cores,
    )
    for images in loader:
        box = misc.bbox2mask(config, misc.random_bbox(config))
        yield images, torch.logical_or(misc.brush_stroke_mask(config), box).to(torch.float32)
