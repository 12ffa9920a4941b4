"""The peer process of MMagic: its DeepFillv2, built from its own config and run eagerly."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import mmagic
import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import init_default_scope
from peers import protocol

ROOT = Path(mmagic.__file__).parent
VERSIONS = f"MMagic {mmagic.__version__}, torch {torch.__version__}"
CONFIG = ROOT / ".mim/configs/deepfillv2/deepfillv2_8xb2_places-256x256.py"
# Packages replaced by empty ones, because their __init__ imports every network, with diffusers,
# torchvision and more; with the names that the modules below import from them, and their modules.
BARE = {
    "models": {},
    "models.editors": {},
    "models.losses": {},
    "models.archs": {
        "SimpleGatedConvModule": "gated_conv_module",
        "LinearModule": "linear_module",
        "MultiLayerDiscriminator": "multi_layer_disc",
    },
}
# Modules that register the inpaintor, its networks and its losses.
MODULES = (
    "base_models",
    "data_preprocessors",
    "editors.deepfillv1",
    "editors.deepfillv2",
    "editors.global_local",
    "losses.gan_loss",
    "losses.pixelwise_loss",
)
LOSSES = {
    "hinge/fake": "fake_loss",
    "hinge/real": "real_loss",
    "l1/coarse/hole": "stage1_loss_l1_hole",
    "l1/coarse/known": "stage1_loss_l1_valid",
    "l1/refined/hole": "stage2_loss_l1_hole",
    "l1/refined/known": "stage2_loss_l1_valid",
    "loss/generator": "loss",
}


def import_networks():
    """Imports only the modules of MMagic that the config needs."""
    sys.modules["torchvision"] = ModuleType("torchvision")  # Imported for a function not called.
    sys.modules["torchvision.utils"] = ModuleType("torchvision.utils")
    sys.modules["torchvision.utils"].make_grid = None
    for name in BARE:
        package = ModuleType(f"mmagic.{name}")
        package.__path__ = [str(ROOT.joinpath(*name.split(".")))]
        sys.modules[package.__name__] = package
    for name, homes in BARE.items():
        for attribute, home in homes.items():
            module = importlib.import_module(f"mmagic.{name}.{home}")
            setattr(sys.modules[f"mmagic.{name}"], attribute, getattr(module, attribute))
    for name in MODULES:
        importlib.import_module(f"mmagic.models.{name}")


def build(path):
    """Builds the inpaintor with the weights and their width; returns it and its config."""
    from mmagic.registry import MODELS

    init_default_scope("mmagic")
    config = Config.fromfile(CONFIG)
    tensors = torch.load(path)["state_dict"]
    width = tensors["generator.stage1.encoder.enc1.conv.conv.bias"].numel() // 2
    scale(config.model.encdec, width / 24)
    model = MODELS.build(config.model)
    model.load_state_dict(tensors)
    return model, config


def scale(part, factor):
    """Scales the widths of a part of the config, recursively."""
    if part.get("type") in ("DeepFillEncoder", "DeepFillDecoder"):
        part.channel_factor = part.get("channel_factor", 1.0) * factor
    if "in_channels" in part:
        part.in_channels = round(part.in_channels * factor)
    for below in part.values():
        if isinstance(below, dict):
            scale(below, factor)


def make_calls(case, path, pictures):
    import_networks()
    return (forward if case.kind == "forward" else train)(path, map(inputs, pictures))


def inputs(pictures):
    """BGR in 0..255, the same masked by mid grey, and the mask: float32 [B, C, S, S]."""
    image, mask = (
        torch.from_numpy(np.moveaxis(x, 3, 1)[:, ::-1].astype(np.float32, order="C"))
        for x in pictures
    )
    return image, image * (1 - mask) + 127.5 * mask, mask


def forward(path, batches):
    from mmagic.structures import DataSample

    model, _ = build(path)
    model.eval()
    _, masked, mask = next(batches)
    masked = masked / 127.5 - 1

    def call():
        with torch.inference_mode():
            outputs = model.forward_tensor(masked, DataSample(mask=mask))
        images = (np.moveaxis(x.numpy(), 1, 3)[..., ::-1] for x in outputs)
        return dict(zip(("refined", "completed"), images, strict=True))

    return {"forward": call}


def train(path, batches):
    from mmagic.structures import DataSample

    model, config = build(path)
    model.train()
    optimizers = OptimWrapperDict(
        generator=build_optim_wrapper(model.generator, config.optim_wrapper.generator),
        disc=build_optim_wrapper(model.disc, config.optim_wrapper.disc),
    )

    def call():
        image, masked, mask = next(batches)
        # A batch in the format of MMagic's data loader.
        samples = [DataSample(gt_img=x, mask=m) for x, m in zip(image, mask, strict=True)]
        losses = model.train_step({"inputs": list(masked), "data_samples": samples}, optimizers)
        return {ours: losses[theirs].detach().numpy() for ours, theirs in LOSSES.items()}

    def trained():
        return {name: x.numpy() for name, x in model.state_dict().items()}

    return {"train": call, "weights": trained}


if __name__ == "__main__":
    torch.set_num_threads(protocol.cores())
    protocol.serve(make_calls, {"versions": VERSIONS, "threads": torch.get_num_threads()})
