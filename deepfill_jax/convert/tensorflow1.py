"""The TF1 release of the paper's authors: variables `inpaint_net/*` and `discriminator/*`."""

from collections.abc import Mapping

import numpy as np

from deepfill_jax.convert.layout import Origin, Table, make_model
from deepfill_jax.models import OFFICIAL
from deepfill_jax.weights import Model

# Of each of our stages, in the order in which it runs; {} is their prefix.
ENCODER = ("{}conv1", "{}conv2_downsample", "{}conv3", "{}conv4_downsample", "{}conv5", "{}conv6")
DILATED = ("{}conv7_atrous", "{}conv8_atrous", "{}conv9_atrous", "{}conv10_atrous")
DECODER = (
    "{}conv11",
    "{}conv12",
    "{0}conv13_upsample/{0}conv13_upsample_conv",
    "{}conv14",
    "{0}conv15_upsample/{0}conv15_upsample_conv",
    "{}conv16",
)


def layers() -> dict[str, str]:
    """Our generator's layers -> theirs."""
    rows = {}
    prefixes = {"coarse": "", "refine/conv_branch": "x", "refine/attention_branch": "pm"}
    for ours, prefix in prefixes.items():
        rows |= {f"{ours}/encode{n}": name.format(prefix) for n, name in enumerate(ENCODER, 1)}
        if prefix != "pm":
            named = enumerate(DILATED, 1)
            rows |= {f"{ours}/dilate{2**n}": name.format(prefix) for n, name in named}
    for n, theirs in enumerate(("pmconv9", "pmconv10"), 1):
        rows[f"refine/attention_branch/attended{n}"] = theirs
    for ours, prefix in {"coarse": "", "refine": "all"}.items():
        named = enumerate(DECODER, 1)
        rows |= {f"{ours}/decoder/decode{n}": name.format(prefix) for n, name in named}
        rows[f"{ours}/decoder/to_rgb"] = f"{prefix}conv17"
    return rows


def make_table() -> Table:
    """The generator's tensors and their origins."""
    return {
        f"generator/{ours}/{tensor}": Origin(f"inpaint_net/{theirs}/{tensor}")
        for ours, theirs in layers().items()
        for tensor in ("kernel", "bias")
    }


def from_variables(variables: Mapping[str, np.ndarray], *, source: str) -> Model:
    """Converts the generator's variables.

    Raises:
        UsageError: These are not the weights of this network; every difference is listed.
    """
    about = {"converted_from": "generative_inpainting (TF1)"}
    return make_model(variables, make_table(), OFFICIAL, source=source, about=about)
