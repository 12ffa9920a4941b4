"""MMagic's DeepFillv2: `deepfillv2_256x256_8x2_places_*.pth`, `..._celeba_*.pth`, own trainings."""

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
        table[f"discriminator/params/patch{n}/kernel"] = Origin(f"{module}.weight_orig", hwio)
        table[f"discriminator/params/patch{n}/bias"] = Origin(f"{module}.bias")
        table[f"discriminator/spectral/patch{n}/u"] = Origin(f"{module}.weight_u")
        table[f"discriminator/spectral/patch{n}/v"] = Origin(f"{module}.weight_v", _power_vector)
    return table


def _power_vector(v: np.ndarray) -> np.ndarray:
    """From the order (in, height, width) of a flattened 5x5 kernel to (height, width, in)."""
    return v.reshape(-1, 25).T.ravel()


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
        UsageError: torch is not installed, there is no such file, or it holds something else.
    """
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"Reading {path} needs PyTorch: pip install 'deepfill_jax[convert]'."
        ) from error
    if not Path(path).is_file():
        raise UsageError(f"There is no file {path}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Broken files raise many kinds, KeyError and IndexError among them.
        # The context, if there is one, is the finding; the error is advice to run the code.
        reason = (str(error.__context__ or error) or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"{path} cannot be read as a PyTorch weights file ({reason}); it is broken, or would "
            "run code when loaded, which is refused: save the bare state_dict instead."
        ) from error
    state_dict = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    named = state_dict.items() if isinstance(state_dict, dict) else ()
    # As float32, because numpy has no bfloat16.
    tensors = {str(name): x.detach().float().numpy() for name, x in named if torch.is_tensor(x)}
    return from_state_dict(tensors, source=str(path))
