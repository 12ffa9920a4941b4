"""The TF1 release of the paper's authors: variables `inpaint_net/*` and `discriminator/*`."""

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

# Of each of our stages, in the order in which it runs; {} is the stage's prefix.
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
# Adam's variables beside a trained one. Its one object served both networks, and counted the
# updates of both in one power of beta2. The first name is the beginning of the second.
FIRST_MOMENT, SECOND_MOMENT, BETA2_POWER = "/Adam", "/Adam_1", "beta2_power"
BETA2 = 0.999
GLOBAL_STEP = "global_step"


def make_table(*, discriminator: bool) -> Table:
    """Our tensors and their origins; power vectors `v` are not stored."""
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
    """Converts variables: the generator's, the discriminator's if there are, Adam's if there are.

    Raises:
        UsageError: These are not the weights of this network; every difference is listed.
    """
    scopes = {"generator": GENERATOR, "discriminator": DISCRIMINATOR}
    trained, moments = {}, {}
    for net, scope in scopes.items():
        of_net = {name: x for name, x in variables.items() if name.startswith(scope)}
        first, second = (
            {n.removesuffix(end): x for n, x in of_net.items() if n.endswith(end)}
            for end in (FIRST_MOMENT, SECOND_MOMENT)
        )
        trained |= {name: x for name, x in of_net.items() if FIRST_MOMENT not in name}
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
    """Whether the first layer sees a channel more than RGB, ones and mask: the sketch."""
    first = np.shape(variables.get(f"{GENERATOR}{LAYERS['coarse/encode1']}/kernel", ()))
    return len(first) == 4 and first[2] == 6


def _updates(variables: Mapping[str, np.ndarray]) -> int:
    """How many updates Adam's bias correction knows of.

    The power is BETA2 before the first update. After 103,000 it is 0 in float32 and the correction
    none; then the steps are as good a number.
    """
    power = float(variables[BETA2_POWER])
    if 0 < power < 1:
        return round(math.log(power) / math.log(BETA2)) - 1
    return max(int(variables.get(GLOBAL_STEP, 0)), 110_000)


def read(prefix: Path) -> Conversion:
    """Reads a checkpoint.

    Raises:
        UsageError: It is damaged, or holds something else.
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
            f"{prefix} holds the weights of another network: of its {len(bundle.entries)} tensors "
            f"none is named {GENERATOR}*."
        )
    wanted = (*scopes, BETA2_POWER, GLOBAL_STEP)
    return from_variables(
        {name: bundle.read(name) for name in bundle.entries if name.startswith(wanted)},
        source=str(prefix),
        metadata=releases.find_tf1(checksums),
        files=[bundle.index, *bundle.shards],
    )
