"""Conversion of weights of nipponjo/deepfillv2-pytorch.

Files `states_tf_*.pth` are for its `networks_tf`, other files for its `networks`. According to its
documentation, `states_tf_*` contain the TF1 release's weights. The release works on BGR images,
nipponjo's code on RGB images. Checksums show whether the file's weights are for BGR or for RGB.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepfill_jax.convert import releases, tensorflow1, torch_file, wrapped
from deepfill_jax.convert.crc32c import crc32c, masked
from deepfill_jax.convert.layout import (
    TORCH_KERNEL,
    Conversion,
    Layout,
    Moments,
    Origin,
    Table,
    convert,
    flip_bgr,
    name_layers,
)
from deepfill_jax.models import NIPPONJO, NIPPONJO_TF
from deepfill_jax.tensors import flatten

# Names of the layers of each stage, in the order of execution; {} is the stage's prefix.
ENCODER = (
    "{}conv1",
    "{}down_block1.conv1_downsample",
    "{}down_block1.conv2",
    "{}down_block2.conv1_downsample",
    "{}down_block2.conv2",
    "{}conv_bn1",
)
DILATED = ("{}conv_bn2", "{}conv_bn3", "{}conv_bn4", "{}conv_bn5")
DECODER = (
    "{}conv_bn6",
    "{}conv_bn7",
    "{}up_block1.conv1_upsample.conv",
    "{}up_block1.conv2",
    "{}up_block2.conv1_upsample.conv",
    "{}up_block2.conv2",
    "{}conv_to_rgb",
)
STAGES = {"coarse": "stage1.", "refine/conv_branch": "stage2.conv_"}
LAYERS = name_layers(
    encoder=(ENCODER, STAGES | {"refine/attention_branch": "stage2.ca_"}),
    dilated=(DILATED, STAGES),
    attended=("stage2.ca_conv_bn4", "stage2.ca_conv_bn5"),
    decoder=(DECODER, {"coarse": "stage1.", "refine": "stage2."}),
)
# `networks_tf` has the TF1 release's names, but its upsampling layers are modules with a
# convolution inside.
TF_LAYERS = {
    ours: f"{theirs.split('/')[0]}.conv" if "/" in theirs else theirs
    for ours, theirs in tensorflow1.LAYERS.items()
}

CONSTANT = "G.stage2.contextual_attention.fuse_weight"  # A constant buffer.
COLUMN = Layout(lambda u: u.reshape(-1), lambda u: u.reshape(-1, 1))


def make_table(layers: Mapping[str, str], *, discriminator: bool) -> Table:
    """Returns the origins of our tensors; the power iteration vectors `v` are not stored.

    Args:
        layers: `LAYERS` or `TF_LAYERS`.
        discriminator: Whether the source contains the discriminator.
    """
    table = {}
    for ours, theirs in layers.items():
        table[f"generator/{ours}/kernel"] = Origin(f"G.{theirs}.conv.weight", TORCH_KERNEL)
        table[f"generator/{ours}/bias"] = Origin(f"G.{theirs}.conv.bias")
    for n in range(1, 7) if discriminator else ():
        module = f"D.conv{n}.conv_sn"
        table[f"discriminator/params/patch{n}/kernel"] = Origin(f"{module}.weight", TORCH_KERNEL)
        table[f"discriminator/params/patch{n}/bias"] = Origin(f"{module}.bias")
        table[f"discriminator/spectral/patch{n}/u"] = Origin(f"{module}.weight_u", COLUMN)
    return table


def from_file(path: Path, content: Mapping[str, Any]) -> Conversion:
    """Converts the content of a file.

    Args:
        path: The file.
        content: Its content, from `torch_file.load`: a dict with the key "G", and in training
            checkpoints also "D".

    Raises:
        UsageError: The weights are not of this network; the message lists every difference.
    """
    tensors: dict[str, np.ndarray] = {}
    moments: dict[str, Moments] = {}
    for net, key in {"generator": "G", "discriminator": "D"}.items():
        states = wrapped.unwrap(torch_file.tensors(content.get(key)))
        named = {f"{key}.{name}": x for name, x in states.items() if f"{key}.{name}" != CONSTANT}
        tensors |= named
        trained = [name for name in named if not name.endswith("weight_u")]
        if adam := torch_file.adam(content.get(f"{key}_optim"), trained):
            moments[net] = adam
    is_plain = "G.stage1.conv1.conv.weight" in tensors
    table = make_table(
        LAYERS if is_plain else TF_LAYERS,
        discriminator=any(name.startswith("D.") for name in tensors),
    )
    metadata = {"converted_from": "nipponjo/deepfillv2-pytorch"}
    if isinstance(content.get("n_iter"), int):
        metadata["step"] = content["n_iter"]

    def converted(*, bgr: bool, **more: str) -> Conversion:
        return convert(
            tensors,
            table,
            NIPPONJO if is_plain else NIPPONJO_TF,
            source=str(path),
            metadata={**metadata, **more},
            moments=moments,
            bgr=bgr,
            files=[path],
        )

    conversion = converted(bgr=False)
    if is_plain:
        return conversion
    stored = flatten({"generator": conversion.model.generator})
    release = _find_release(stored)
    if release["release"]:
        return converted(bgr=True, **release)
    return converted(bgr=False, **_find_release(flip_bgr(stored)))


def _find_release(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Compares a generator's tensors, in our layout, with the TF1 release; see `find_tf1`."""
    return releases.find_tf1(
        {
            origin.name: masked(crc32c(np.asarray(tensors[ours], "<f4").tobytes()))
            for ours, origin in tensorflow1.make_table(discriminator=False).items()
        }
    )
