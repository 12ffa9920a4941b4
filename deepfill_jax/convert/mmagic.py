"""Conversion of MMagic's DeepFillv2 weights.

Sources are the published files `deepfillv2_256x256_8x2_places_*.pth` and `..._celeba_*.pth`, and
checkpoints of training runs.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepfill_jax import weights
from deepfill_jax.convert import parent, releases, torch_file, torch_writer, wrapped
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

# Names of the layers of each stage, in the order of execution; {} is the enclosing module.
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

# Constant buffers: the attention's fuse kernel, and the images' mean and standard deviation.
FUSE_KERNEL = "generator.stage2.contextual_attention_neck.contextual_attention.fuse_kernel"
CONSTANTS = (FUSE_KERNEL, "data_preprocessor.")
VECTORS = ("weight_u", "weight_v")  # Buffers of the power iteration.
# MMagic flattens (in, height, width), we flatten (height, width, in); kernels are 5x5.
POWER_VECTOR = Layout(lambda v: v.reshape(-1, 25).T.ravel(), lambda v: v.reshape(25, -1).T.ravel())


def make_table(*, discriminator: bool) -> Table:
    """Returns the origins of all our tensors."""
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

    Args:
        state_dict: Tensors by name.
        source: Name of the source, for error messages.
        metadata: Further metadata of the model.
        moments: Adam's moments of "generator" and "discriminator".
        files: Files of the source.

    Raises:
        UsageError: The weights are not of this network; the message lists every difference.
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


def from_file(path: Path, content: Any, *, generator: str | None = None) -> Conversion:
    """Converts the content of a file: a training checkpoint, or a bare state dict.

    Args:
        path: The file.
        content: Its content, from `torch_file.load`.
        generator: "generator" or "generator_ema", if the file holds both.

    Raises:
        UsageError: The weights are not of this network; the message lists every difference.
    """
    content = content if isinstance(content, Mapping) else {}
    meta, optimizers = (
        value if isinstance(value := content.get(key), Mapping) else {}
        for key in ("meta", "optimizer")
    )
    state_dict = wrapped.unwrap(torch_file.tensors(wrapped.find_state(content)))
    state_dict = wrapped.choose_generator(state_dict, generator, source=str(path))
    metadata = releases.find_mmagic(path)
    if isinstance(meta.get("iter"), int):
        metadata = {**metadata, "step": meta["iter"]}
    metadata |= {key: x for key in parent.INHERITED if isinstance(x := meta.get(key), str)}
    moments = {}
    for net, module in {"generator": "generator", "discriminator": "disc"}.items():
        trained = [
            name
            for name in state_dict
            if name.startswith(f"{module}.") and name != FUSE_KERNEL and not name.endswith(VECTORS)
        ]
        if generator == "generator_ema" and net == "generator":
            continue  # Adam's moments are of the generator that was trained.
        if adam := torch_file.adam(optimizers.get(module), trained):
            moments[net] = adam
    return from_state_dict(
        state_dict, source=str(path), metadata=metadata, moments=moments, files=[path]
    )


def write(path: Path, model: weights.Model) -> None:
    """Writes a `.pth` file that MMagic can load.

    The file contains the networks without Adam's moments.

    Raises:
        UsageError: The architecture is not MMagic's, or the file cannot be written.
    """
    if model.variant.name != MMAGIC.name or model.variant.guided:
        kind = "guided " * model.variant.guided + model.variant.name
        raise UsageError(
            f"{path} cannot be written: a .pth file is for MMagic, and the architecture {kind!r} "
            "has other layers than MMagic's network; write a .safetensors file instead."
        )
    tensors = revert(model, make_table(discriminator=model.discriminator is not None))
    tensors[FUSE_KERNEL] = np.eye(3, dtype=np.float32)[np.newaxis, np.newaxis]
    names = {"step": "iter"} | {key: key for key in parent.INHERITED}
    meta = {names[key]: x for key, x in model.metadata.items() if key in names}
    torch_writer.save(path, {"meta": meta, "state_dict": tensors})
