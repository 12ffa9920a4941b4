"""Conversion of the TF1 release by the paper's authors.

Its variables are named `inpaint_net/*` and `discriminator/*`.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepfill_jax.convert import releases, tensor_bundle
from deepfill_jax.convert.layout import (
    Conversion,
    Layout,
    Moments,
    Origin,
    Table,
    convert,
    name_layers,
)
from deepfill_jax.errors import UsageError
from deepfill_jax.models import OFFICIAL

GENERATOR = "inpaint_net/"
DISCRIMINATOR = "discriminator/sn_patch_gan/"

# Names of the layers of each stage, in the order of execution; {} is the stage's prefix.
ENCODER = ("{}conv1", "{}conv2_downsample", "{}conv3", "{}conv4_downsample", "{}conv5", "{}conv6")
DILATED = ("{}conv7_atrous", "{}conv8_atrous", "{}conv9_atrous", "{}conv10_atrous")
DECODER = (
    "{}conv11",
    "{}conv12",
    "{0}conv13_upsample/{0}conv13_upsample_conv",
    "{}conv14",
    "{0}conv15_upsample/{0}conv15_upsample_conv",
    "{}conv16",
    "{}conv17",
)
LAYERS = name_layers(
    encoder=(ENCODER, {"coarse": "", "refine/conv_branch": "x", "refine/attention_branch": "pm"}),
    dilated=(DILATED, {"coarse": "", "refine/conv_branch": "x"}),
    attended=("pmconv9", "pmconv10"),
    decoder=(DECODER, {"coarse": "", "refine": "all"}),
)

ROW = Layout(lambda u: u.reshape(-1), lambda u: u.reshape(1, -1))
# Suffixes of Adam's variables for each trained variable. One optimizer trained both networks and
# counted the updates of both in one power of beta2. FIRST_MOMENT is a prefix of SECOND_MOMENT.
FIRST_MOMENT, SECOND_MOMENT, BETA2_POWER = "/Adam", "/Adam_1", "beta2_power"
BETA2 = 0.999
GLOBAL_STEP = "global_step"


def make_table(*, discriminator: bool) -> Table:
    """Returns the origins of our tensors; the power iteration vectors `v` are not stored."""
    table = {
        f"generator/{ours}/{tensor}": Origin(f"{GENERATOR}{theirs}/{tensor}")
        for ours, theirs in LAYERS.items()
        for tensor in ("kernel", "bias")
    }
    for n in range(1, 7) if discriminator else ():
        layer = f"{DISCRIMINATOR}conv{n}"
        table[f"discriminator/params/patch{n}/kernel"] = Origin(f"{layer}/kernel")
        table[f"discriminator/params/patch{n}/bias"] = Origin(f"{layer}/bias")
        table[f"discriminator/spectral/patch{n}/u"] = Origin(f"{layer}/kernel_sn/u", ROW)
    return table


def from_variables(
    variables: Mapping[str, np.ndarray],
    *,
    source: str,
    metadata: Mapping[str, Any] | None = None,
    files: Iterable[Path] = (),
) -> Conversion:
    """Converts the generator's variables and, if present, the discriminator's and Adam's.

    Args:
        variables: Arrays by name.
        source: Name of the source, for error messages.
        metadata: Further metadata of the model.
        files: Files of the source.

    Raises:
        UsageError: The weights are not of this network; the message lists every difference.
    """
    scopes = {"generator": GENERATOR, "discriminator": DISCRIMINATOR}
    trained: dict[str, np.ndarray] = {}
    moments: dict[str, Moments] = {}
    for net, scope in scopes.items():
        scoped = {name: x for name, x in variables.items() if name.startswith(scope)}
        first, second = (
            {n.removesuffix(suffix): x for n, x in scoped.items() if n.endswith(suffix)}
            for suffix in (FIRST_MOMENT, SECOND_MOMENT)
        )
        trained |= {name: x for name, x in scoped.items() if FIRST_MOMENT not in name}
        if first and second and BETA2_POWER in variables:
            moments[net] = Moments(_updates(variables), first, second)
    step = {"step": int(variables[GLOBAL_STEP])} if GLOBAL_STEP in variables else {}
    return convert(
        trained,
        make_table(discriminator=any(name.startswith(DISCRIMINATOR) for name in trained)),
        dataclasses.replace(OFFICIAL, guided=_is_guided(variables)),
        source=source,
        metadata={"converted_from": "generative_inpainting (TF1)", **(metadata or {}), **step},
        moments=moments,
        files=files,
    )


def _is_guided(variables: Mapping[str, np.ndarray]) -> bool:
    """Tells whether the first layer has a sixth input channel, the sketch.

    The other channels are RGB, ones and mask.
    """
    shape = np.shape(variables.get(f"{GENERATOR}{LAYERS['coarse/encode1']}/kernel", ()))
    return len(shape) == 4 and shape[2] == 6


def _updates(variables: Mapping[str, np.ndarray]) -> int:
    """Returns the number of updates that Adam's bias correction has counted.

    The power is BETA2 before the first update. After 103,000 updates it is 0 in float32 and the
    correction has no effect, so the number of training steps can be used instead.
    """
    power = float(variables[BETA2_POWER])
    if 0 < power < 1:
        return round(math.log(power) / math.log(BETA2)) - 1
    return max(int(variables.get(GLOBAL_STEP, 0)), 110_000)


def read(prefix: Path) -> Conversion:
    """Reads and converts the checkpoint with the given prefix.

    Raises:
        UsageError: The checkpoint is damaged, or contains other weights.
    """
    bundle = tensor_bundle.Bundle(prefix)
    scopes = (GENERATOR, DISCRIMINATOR)
    checksums = {
        name: entry.checksum
        for name, entry in bundle.entries.items()
        if name.startswith(scopes) and FIRST_MOMENT not in name
    }
    if not checksums:
        raise UsageError(
            f"{prefix} holds the weights of another network: none of its {len(bundle.entries)} "
            f"tensors is named {GENERATOR}*."
        )
    wanted = (*scopes, BETA2_POWER, GLOBAL_STEP)
    return from_variables(
        {name: bundle.read(name) for name in bundle.entries if name.startswith(wanted)},
        source=str(prefix),
        metadata=releases.find_tf1(checksums),
        files=[bundle.index, *bundle.shards],
    )
