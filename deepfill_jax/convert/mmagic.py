"""MMagic's DeepFillv2: `deepfillv2_256x256_8x2_places_*.pth`, `..._celeba_*.pth`, own trainings."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepfill_jax import weights
from deepfill_jax.convert import releases, torch_file
from deepfill_jax.convert.layout import (
    TORCH_KERNEL,
    Conversion,
    Layout,
    Moments,
    Origin,
    Table,
    convert,
    name_layers,
    revert,
)
from deepfill_jax.errors import UsageError
from deepfill_jax.models import MMAGIC

# Of each of our stages, in the order in which it runs; {} is the module it is in.
ENCODER = tuple(f"{{}}.enc{n}" for n in range(1, 7))
DILATED = tuple(f"{{}}.dilation_neck.dilation_convs.{n}" for n in range(4))
DECODER = tuple(f"{{}}.decoder.dec{n}" for n in range(1, 8))
LAYERS = name_layers(
    encoder=(
        ENCODER,
        {
            "coarse": "stage1.encoder",
            "refine/conv_branch": "stage2.encoder_conv",
            "refine/attention_branch": "stage2.encoder_attention",
        },
    ),
    dilated=(DILATED, {"coarse": "stage1", "refine/conv_branch": "stage2"}),
    attended=tuple(f"stage2.contextual_attention_neck.conv{n}" for n in (1, 2)),
    decoder=(DECODER, {"coarse": "stage1", "refine": "stage2"}),
)

# Buffers without anything learnt: the attention's fuse kernel, the picture's mean and deviation.
FUSE_KERNEL = "generator.stage2.contextual_attention_neck.contextual_attention.fuse_kernel"
CONSTANTS = (FUSE_KERNEL, "data_preprocessor.")
VECTORS = ("weight_u", "weight_v")  # Buffers of the power iteration.
# Theirs is flattened from (in, height, width), ours from (height, width, in); kernels are 5x5.
POWER_VECTOR = Layout(lambda v: v.reshape(-1, 25).T.ravel(), lambda v: v.reshape(25, -1).T.ravel())


def make_table(*, discriminator: bool) -> Table:
    """All tensors of ours and their origins."""
    table = {}
    for ours, theirs in LAYERS.items():
        module = f"generator.{theirs}.conv.conv"
        table[f"generator/{ours}/kernel"] = Origin(f"{module}.weight", TORCH_KERNEL)
        table[f"generator/{ours}/bias"] = Origin(f"{module}.bias")
    for n in range(1, 7) if discriminator else ():
        module = f"disc.conv{n}.conv"
        table[f"discriminator/params/patch{n}/kernel"] = Origin(
            f"{module}.weight_orig", TORCH_KERNEL
        )
        table[f"discriminator/params/patch{n}/bias"] = Origin(f"{module}.bias")
        table[f"discriminator/spectral/patch{n}/u"] = Origin(f"{module}.weight_u")
        table[f"discriminator/spectral/patch{n}/v"] = Origin(f"{module}.weight_v", POWER_VECTOR)
    return table


def from_state_dict(
    state_dict: Mapping[str, np.ndarray],
    *,
    source: str,
    metadata: Mapping[str, Any] | None = None,
    moments: Mapping[str, Moments] | None = None,
    files: Iterable[Path] = (),
) -> Conversion:
    """Converts a state dict of numpy arrays, with or without the discriminator (`disc.*`).

    Raises:
        UsageError: These are not the weights of this network; every difference is listed.
    """
    tensors = {n: x for n, x in state_dict.items() if not n.startswith(CONSTANTS)}
    return convert(
        tensors,
        make_table(discriminator=any(name.startswith("disc.") for name in tensors)),
        MMAGIC,
        source=source,
        metadata={"converted_from": "MMagic", **(metadata or {})},
        moments=moments,
        files=files,
    )


def from_file(path: Path, content: Any) -> Conversion:
    """Converts what `torch_file.load` found in a file: a training's checkpoint, or its state dict.

    Raises:
        UsageError: These are not the weights of this network; every difference is listed.
    """
    content = content if isinstance(content, Mapping) else {}
    meta, optimizers = (
        found if isinstance(found := content.get(key), Mapping) else {}
        for key in ("meta", "optimizer")
    )
    state_dict = torch_file.tensors(content.get("state_dict", content))
    metadata = releases.find_mmagic(path)
    if isinstance(meta.get("iter"), int):
        metadata = {**metadata, "step": meta["iter"]}
    moments = {}
    for net, module in {"generator": "generator", "discriminator": "disc"}.items():
        trained = [
            name
            for name in state_dict
            if name.startswith(f"{module}.") and name != FUSE_KERNEL and not name.endswith(VECTORS)
        ]
        if adam := torch_file.adam(optimizers.get(module), trained):
            moments[net] = adam
    return from_state_dict(
        state_dict, source=str(path), metadata=metadata, moments=moments, files=[path]
    )


def write(path: Path, model: weights.Model) -> None:
    """Writes a `.pth` with what MMagic loads, networks without moments; needs torch.

    Raises:
        UsageError: The architecture is another one, torch is not installed, or the file cannot be
            written.
    """
    if model.variant.name != MMAGIC.name or model.variant.guided:
        kind = "guided " * model.variant.guided + model.variant.name
        raise UsageError(
            f"{path} cannot be written: a .pth is MMagic's, and the architecture {kind!r} has "
            "other layers than its network."
        )
    tensors = revert(model, make_table(discriminator=model.discriminator is not None))
    tensors[FUSE_KERNEL] = np.eye(3, dtype=np.float32)[np.newaxis, np.newaxis]
    step = {"iter": model.metadata["step"]} if "step" in model.metadata else {}
    torch_file.save(path, {"meta": step, "state_dict": tensors})
