"""MMagic's data loader with its data set and transforms, from its Places2 config.

Its batches are lists. Its model stacks, normalises and masks them; this time is not included.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import mmagic
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

ROOT = Path(mmagic.__file__).parent
CONFIG = ROOT / ".mim/configs/deepfillv2/deepfillv2_8xb2_places-256x256.py"
BARE = ("datasets", "datasets.transforms")  # Replaced, as their __init__ imports unneeded modules.
MODULES = (
    "basic_image_dataset",
    "transforms.loading",
    "transforms.crop",
    "transforms.aug_shape",
    "transforms.get_masked_image",
    "transforms.formatting",
)


def batches(photos, cores, batch_size):
    for name in BARE:
        package = ModuleType(f"mmagic.{name}")
        package.__path__ = [str(ROOT.joinpath(*name.split(".")))]
        sys.modules[package.__name__] = package
    for name in MODULES:
        importlib.import_module(f"mmagic.datasets.{name}")
    init_default_scope("mmagic")
    config = Config.fromfile(CONFIG)
    set_multi_processing(**config.env_cfg.mp_cfg)
    loader = config.train_dataloader
    loader.dataset.update(data_root=photos, data_prefix={"gt": ""}, ann_file="")
    loader.update(batch_size=batch_size, num_workers=cores)
    return iter(Runner.build_dataloader(loader, seed=0))
