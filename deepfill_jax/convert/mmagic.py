"""MMagic's DeepFillv2: `deepfillv2_256x256_8x2_places_*.pth`, `..._celeba_*.pth`, own trainings."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepfill_jax.convert.layout import Origin, Table, hwio, make_model
from deepfill_jax.errors import UsageError
from deepfill_jax.models import MMAGIC
from deepfill_jax.weights import Model

# Our stage: their module of each layer; {} is the layer's number.
ENCODERS = {
    "coarse": "stage1.encoder.enc{}",
    "refine/conv_branch": "stage2.encoder_conv.enc{}",
    "refine/attention_branch": "stage2.encoder_attention.enc{}",
}
DILATED = {
    "coarse": "stage1.dilation_neck.dilation_convs.{}",
    "refine/conv_branch": "stage2.dilation_neck.dilation_convs.{}",
}
DECODERS = {"coarse": "stage1.decoder.dec{}", "refine": "stage2.decoder.dec{}"}

# Buffers without anything learnt: the attention's fuse kernel, the picture's mean and deviation.
CONSTANTS = ("fuse_kernel", "data_preprocessor.")


def layers() -> dict[str, str]:
    """Our generator's layers -> theirs."""
    rows = {}
    for ours, theirs in ENCODERS.items():
        rows |= {f"{ours}/encode{n}": theirs.format(n) for n in range(1, 7)}
    for ours, theirs in DILATED.items():
        rows |= {f"{ours}/dilate{2 ** (n + 1)}": theirs.format(n) for n in range(4)}
    for n in (1, 2):
        rows[f"refine/attention_branch/attended{n}"] = f"stage2.contextual_attention_neck.conv{n}"
    for ours, theirs in DECODERS.items():
        rows |= {f"{ours}/decoder/decode{n}": theirs.format(n) for n in range(1, 7)}
        rows[f"{ours}/decoder/to_rgb"] = theirs.format(7)
    return rows


def make_table(*, discriminator: bool) -> Table:
    """All tensors of ours and their origins."""
    table = {}
    for ours, theirs in layers().items():
        module = f"generator.{theirs}.conv.conv"
        table[f"generator/{ours}/kernel"] = Origin(f"{module}.weight", hwio)
        table[f"generator/{ours}/bias"] = Origin(f"{module}.bias")
    for n in range(1, 7) if discriminator else ():
        module = f"disc.conv{n}.conv"
        channels_in = {1: 4, 2: 64, 3: 128}.get(n, 256)
        table[f"discriminator/params/patch{n}/kernel"] = Origin(f"{module}.weight_orig", hwio)
        table[f"discriminator/params/patch{n}/bias"] = Origin(f"{module}.bias")
        table[f"discriminator/spectral/patch{n}/u"] = Origin(f"{module}.weight_u")
        table[f"discriminator/spectral/patch{n}/v"] = Origin(
            f"{module}.weight_v", _power_vector(channels_in)
        )
    return table


def _power_vector(channels_in: int):
    """From the order (in, height, width) of a flattened PyTorch kernel to (height, width, in)."""
    return lambda v: v.reshape(channels_in, -1).T.ravel()


def from_state_dict(state_dict: Mapping[str, np.ndarray], *, source: str) -> Model:
    """Converts a state dict of numpy arrays, with or without the discriminator (`disc.*`).

    Raises:
        UsageError: These are not the weights of this network; every difference is listed.
    """
    tensors = {name: x for name, x in state_dict.items() if not any(c in name for c in CONSTANTS)}
    table = make_table(discriminator=any(name.startswith("disc.") for name in tensors))
    return make_model(tensors, table, MMAGIC, source=source, about={"converted_from": "MMagic"})


def read(path: str | Path) -> Model:
    """Reads a `.pth` file; needs torch, and never runs code that the file holds.

    Raises:
        UsageError: torch is not installed, or the file is not such a file.
    """
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"Reading {path} needs PyTorch: pip install 'deepfill_jax[convert]'."
        ) from error
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{path} cannot be read as a PyTorch weights file ({reason}). Files that would run "
            "code when loaded are refused; save the bare state_dict instead."
        ) from error
    state_dict = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    tensors = {name: x.numpy() for name, x in state_dict.items() if torch.is_tensor(x)}
    return from_state_dict(tensors, source=str(path))
