"""From another implementation's tensors to our parameter tree, and back, by a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepfill_jax import weights
from deepfill_jax.models import Variant, make_variant
from deepfill_jax.models.generator import DILATIONS
from deepfill_jax.models.layers import EPSILON
from deepfill_jax.tensors import (
    PARAMS,
    check_tensors,
    expected_tensors,
    flatten,
    subtree,
    unflatten,
)

# Our layers that see an image, in their first channels, and those that make one. Most sources work
# on BGR, as OpenCV reads it; ours works on RGB.
IMAGE_INPUTS = (
    "generator/coarse/encode1",
    "generator/refine/conv_branch/encode1",
    "generator/refine/attention_branch/encode1",
    "discriminator/params/patch1",
)
IMAGE_OUTPUTS = ("generator/coarse/decoder/to_rgb", "generator/refine/decoder/to_rgb")


class Layout(NamedTuple):
    """How the same numbers lie in a tensor of theirs and in ours."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


AS_IS = Layout(np.asarray, np.asarray)
# PyTorch's kernels are [out, in, height, width], ours [height, width, in, out].
TORCH_KERNEL = Layout(lambda x: np.transpose(x, (2, 3, 1, 0)), lambda x: x.transpose(3, 2, 0, 1))


class Origin(NamedTuple):
    """Where a tensor of ours comes from."""

    name: str  # Theirs.
    layout: Layout = AS_IS


Table = dict[str, Origin]  # Our tensor's name -> its origin.


Named = tuple[Sequence[str], Mapping[str, str]]  # Patterns with {}, and our stage -> what {} is.


def name_layers(
    *, encoder: Named, dilated: Named, attended: Sequence[str], decoder: Named
) -> dict[str, str]:
    """Our generator's layers -> theirs.

    Args:
        encoder: Their names of a stage's first six layers.
        dilated: Their names of its four dilated layers.
        attended: Their names of the two layers after the attention.
        decoder: Their names of a stage's last seven layers.
    """
    numbers = range(1, 7)
    branch = "refine/attention_branch"
    ours = (
        ([f"encode{n}" for n in numbers], encoder),
        ([f"dilate{dilation}" for dilation in DILATIONS], dilated),
        ([f"attended{n}" for n in (1, 2)], (attended, {branch: ""})),
        ([*(f"decoder/decode{n}" for n in numbers), "decoder/to_rgb"], decoder),
    )
    return {
        f"{stage}/{layer}": pattern.format(part)
        for layers, (patterns, stages) in ours
        for stage, part in stages.items()
        for layer, pattern in zip(layers, patterns, strict=True)
    }


class Moments(NamedTuple):
    """What Adam remembers of a network's parameters, under their names."""

    count: int  # Updates.
    first: Mapping[str, np.ndarray]
    second: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Conversion:
    """A model, and where it comes from."""

    model: weights.Model
    origins: Mapping[str, str]  # Our tensor's name -> theirs.
    dtype: str  # In which the source stores the generator.
    files: tuple[Path, ...] = ()


def convert(
    tensors: Mapping[str, np.ndarray],
    table: Table,
    variant: Variant,
    *,
    source: str,
    metadata: Mapping[str, Any],
    moments: Mapping[str, Moments] | None = None,
    bgr: bool = True,
    files: Iterable[Path] = (),
) -> Conversion:
    """Converts tensors, named as theirs, to a model on RGB images.

    Args:
        tensors: All that the source holds, and nothing else.
        table: Of all tensors of ours, but a discriminator's power vectors `v` may be left out;
            they are computed then.
        variant: The architecture, guided or not; its widths are taken from the tensors.
        source: Its name, for messages.
        metadata: Goes into the model.
        moments: Of "generator" and "discriminator", if the source has any.
        bgr: Whether the source's networks work on BGR.
        files: Goes into the conversion.

    Raises:
        UsageError: A tensor is missing, extra or of another shape; all are listed, by their names
            and with shapes in our layout.
    """
    ours = _renamed(tensors, table)
    variant = _with_widths(variant, ours)
    has_discriminator = any(name.startswith("discriminator/") for name in table)
    expected = expected_tensors(variant, discriminator=has_discriminator)

    def finish(theirs: Mapping[str, np.ndarray], rows: Table, source: str) -> dict[str, np.ndarray]:
        found = _checked(theirs, rows, expected, source=source)
        return flip_bgr(found) if bgr else found

    def finish_moments(net: str, adam: Moments) -> dict[str, Any]:
        path = PARAMS[net]
        rows = {name: origin for name, origin in table.items() if name.startswith(path)}
        mu, nu = (
            unflatten(subtree(finish(x, rows, f"Adam of {source}"), path))
            for x in (adam.first, adam.second)
        )
        return {"count": np.int32(adam.count), "mu": mu, "nu": nu}

    tree = unflatten(_with_power_vectors(finish(tensors, table, source), expected))
    model = weights.Model(
        variant,
        tree["generator"],
        tree.get("discriminator"),
        metadata,
        {net: finish_moments(net, adam) for net, adam in (moments or {}).items()},
    )
    dtypes = {str(x.dtype) for name, x in ours.items() if name.startswith("generator/")}
    origins = {name: origin.name for name, origin in table.items()}
    return Conversion(model, origins, " and ".join(sorted(dtypes)), tuple(files))


def revert(model: weights.Model, table: Table) -> dict[str, np.ndarray]:
    """The tensors of a model, named as theirs and on BGR images: the way back of `convert`."""
    flipped = flip_bgr(flatten(weights.networks(model)))
    return {
        origin.name: np.ascontiguousarray(origin.layout.to_theirs(flipped[name]))
        for name, origin in table.items()
    }


def _renamed(tensors: Mapping[str, np.ndarray], table: Table) -> dict[str, np.ndarray]:
    """Those that there are, in our layout; but what has not even its dimensions stays as it is."""
    renamed = {}
    for name, origin in table.items():
        if origin.name in tensors:
            x = tensors[origin.name]
            try:
                renamed[name] = origin.layout.to_ours(x)
            except ValueError:  # It will be listed as misshapen.
                renamed[name] = x
    return renamed


def _checked(
    tensors: Mapping[str, np.ndarray],
    table: Table,
    expected: Mapping[str, tuple[int, ...]],
    *,
    source: str,
) -> dict[str, np.ndarray]:
    """Our tensors of `table`, float32; raises if theirs are not all of these and no others."""
    ours = _renamed(tensors, table)
    found = {name: np.shape(x) for name, x in tensors.items()}
    found |= {table[name].name: np.shape(x) for name, x in ours.items()}
    shapes = {origin.name: expected[name] for name, origin in table.items()}
    check_tensors(found, shapes, source=source)
    return {name: np.asarray(x, np.float32) for name, x in ours.items()}


def _with_widths(variant: Variant, ours: Mapping[str, np.ndarray]) -> Variant:
    """Widths that fit the first layers; whatever is odd about them will be listed as misshapen."""
    gated = ours.get("generator/coarse/encode1/bias")
    plain = ours.get("discriminator/params/patch1/bias")
    return make_variant(
        variant.name,
        width=variant.width if gated is None else max(2, np.size(gated) // 4 * 2),
        discriminator_width=(
            variant.discriminator_width if plain is None else max(1, np.size(plain))
        ),
        guided=variant.guided,
    )


def _with_power_vectors(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Adds the vectors `v` that a source does not store: what `u` makes of the kernel, length 1."""
    added = {}
    for name in expected.keys() - tensors.keys():
        layer = name.removeprefix("discriminator/spectral/").removesuffix("/v")
        kernel = tensors[f"discriminator/params/{layer}/kernel"]
        v = kernel.reshape(-1, kernel.shape[-1]) @ tensors[f"discriminator/spectral/{layer}/u"]
        added[name] = v / max(np.linalg.norm(v), EPSILON)
    return {**tensors, **added}


def flip_bgr(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turns a network on BGR images into the same network on RGB images, or back; names are ours.

    Tensors that are not there are not missed, so a network's gradients or moments can be turned.
    """
    flipped = dict(tensors)
    for layer in IMAGE_INPUTS:
        if f"{layer}/kernel" in flipped:
            flipped[f"{layer}/kernel"] = _flip_inputs(flipped[f"{layer}/kernel"])
    for layer in IMAGE_OUTPUTS:
        for name in {f"{layer}/kernel", f"{layer}/bias"} & flipped.keys():
            x = flipped[name]  # 3 values, then 3 gates if the layer has them.
            flipped[name] = x.reshape(*x.shape[:-1], -1, 3)[..., ::-1].reshape(x.shape)
    power_vector = "discriminator/spectral/patch1/v"  # In the order of the kernel's inputs.
    if power_vector in flipped:
        kernel = flipped["discriminator/params/patch1/kernel"]
        v = flipped[power_vector].reshape(*kernel.shape[:3], 1)
        flipped[power_vector] = _flip_inputs(v).ravel()
    return flipped


def _flip_inputs(kernel: np.ndarray) -> np.ndarray:
    return np.concatenate([kernel[:, :, 2::-1], kernel[:, :, 3:]], axis=2)
