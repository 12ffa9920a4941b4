"""Conversion between another implementation's tensors and our parameter tree, by a table."""

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

# Layers whose first input channels are an image, and layers whose output is an image. Most sources
# work on BGR images, as OpenCV reads them; our networks work on RGB images.
IMAGE_INPUTS = (
    "generator/coarse/encode1",
    "generator/refine/conv_branch/encode1",
    "generator/refine/attention_branch/encode1",
    "discriminator/params/patch1",
)
IMAGE_OUTPUTS = ("generator/coarse/decoder/to_rgb", "generator/refine/decoder/to_rgb")


class Layout(NamedTuple):
    """Conversion of a tensor between the source's memory layout and ours."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


AS_IS = Layout(np.asarray, np.asarray)
# PyTorch's kernels are [out, in, height, width], ours are [height, width, in, out].
TORCH_KERNEL = Layout(lambda x: np.transpose(x, (2, 3, 1, 0)), lambda x: x.transpose(3, 2, 0, 1))


class Origin(NamedTuple):
    """Source of one of our tensors."""

    name: str  # Name in the source.
    layout: Layout = AS_IS


Table = dict[str, Origin]  # Maps the name of our tensor to its origin.
# Name patterns with a placeholder {}, and for each of our stages the text that replaces it.
Named = tuple[Sequence[str], Mapping[str, str]]


def name_layers(
    *, encoder: Named, dilated: Named, attended: Sequence[str], decoder: Named
) -> dict[str, str]:
    """Maps the names of our generator's layers to the source's names.

    Args:
        encoder: The source's names of a stage's first six layers.
        dilated: The source's names of its four dilated layers.
        attended: The source's names of the two layers after the attention.
        decoder: The source's names of a stage's last seven layers.
    """
    numbers = range(1, 7)
    ours = (
        ([f"encode{n}" for n in numbers], encoder),
        ([f"dilate{dilation}" for dilation in DILATIONS], dilated),
        ([f"attended{n}" for n in (1, 2)], (attended, {"refine/attention_branch": ""})),
        ([*(f"decoder/decode{n}" for n in numbers), "decoder/to_rgb"], decoder),
    )
    return {
        f"{stage}/{layer}": pattern.format(part)
        for layers, (patterns, stages) in ours
        for stage, part in stages.items()
        for layer, pattern in zip(layers, patterns, strict=True)
    }


@dataclass(frozen=True)
class Moments:
    """Adam's state for one network, with tensors named as in the source."""

    count: int  # Number of updates.
    first: Mapping[str, np.ndarray]
    second: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Conversion:
    """A converted model and its source."""

    model: weights.Model
    origins: Mapping[str, str]  # Maps the name of our tensor to the source's name.
    dtype: str  # Data type of the generator in the source.
    files: tuple[Path, ...] = ()  # Files of the source.


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
    """Converts a source's tensors to a model for RGB images.

    Args:
        tensors: All tensors of the networks by their names in the source, and no others.
        table: Origins of all our tensors. The discriminator's power iteration vectors `v` may be
            omitted; they are computed then.
        variant: The architecture, guided or not; its widths are taken from the tensors.
        source: Name of the source, for error messages.
        metadata: Metadata of the model.
        moments: Adam's moments of "generator" and "discriminator", if the source has any.
        bgr: Whether the source's networks work on BGR images.
        files: Files of the source.

    Raises:
        UsageError: A tensor is missing, unexpected or has another shape. The message lists all
            such tensors by their names in the source, with shapes in our layout.
    """
    ours = _renamed(tensors, table)
    variant = _with_widths(variant, ours)
    has_discriminator = any(name.startswith("discriminator/") for name in table)
    expected = expected_tensors(variant, discriminator=has_discriminator)

    def finish(theirs: Mapping[str, np.ndarray], rows: Table, source: str) -> dict[str, np.ndarray]:
        converted = _checked(theirs, rows, expected, source=source)
        return flip_bgr(converted) if bgr else converted

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
    """Converts a model to a source's tensors for BGR images: the inverse of `convert`."""
    flipped = flip_bgr(flatten(weights.networks(model)))
    return {
        origin.name: np.ascontiguousarray(origin.layout.to_theirs(flipped[name]))
        for name, origin in table.items()
    }


def _renamed(tensors: Mapping[str, np.ndarray], table: Table) -> dict[str, np.ndarray]:
    """Returns the available tensors in our layout, unchanged if their rank is wrong."""
    renamed = {}
    for name, origin in table.items():
        if origin.name in tensors:
            x = tensors[origin.name]
            try:
                renamed[name] = origin.layout.to_ours(x)
            except ValueError:  # `check_tensors` will list it as misshapen.
                renamed[name] = x
    return renamed


def _checked(
    tensors: Mapping[str, np.ndarray],
    table: Table,
    expected: Mapping[str, tuple[int, ...]],
    *,
    source: str,
) -> dict[str, np.ndarray]:
    """Returns our tensors of `table` as float32; raises UsageError if a name or shape differs."""
    ours = _renamed(tensors, table)
    shapes = {name: np.shape(x) for name, x in tensors.items()}
    shapes |= {table[name].name: np.shape(x) for name, x in ours.items()}
    expected_shapes = {origin.name: expected[name] for name, origin in table.items()}
    check_tensors(shapes, expected_shapes, source=source)
    return {name: np.asarray(x, np.float32) for name, x in ours.items()}


def _with_widths(variant: Variant, ours: Mapping[str, np.ndarray]) -> Variant:
    """Returns the variant with the widths of the first layers, or valid widths close to them."""
    gated_bias = ours.get("generator/coarse/encode1/bias")
    patch_bias = ours.get("discriminator/params/patch1/bias")
    return make_variant(
        variant.name,
        width=variant.width if gated_bias is None else max(2, np.size(gated_bias) // 4 * 2),
        discriminator_width=(
            variant.discriminator_width if patch_bias is None else max(1, np.size(patch_bias))
        ),
        guided=variant.guided,
    )


def _with_power_vectors(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Computes the vectors `v` that a source does not store: kernel times `u`, normalised."""
    added = {}
    for name in expected.keys() - tensors.keys():
        layer = name.removeprefix("discriminator/spectral/").removesuffix("/v")
        kernel = tensors[f"discriminator/params/{layer}/kernel"]
        v = kernel.reshape(-1, kernel.shape[-1]) @ tensors[f"discriminator/spectral/{layer}/u"]
        added[name] = v / max(np.linalg.norm(v), EPSILON)
    return {**tensors, **added}


def flip_bgr(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts networks for BGR images to networks for RGB images, or back.

    Only the layers at the image inputs and outputs change. Tensors, named as in our parameter tree,
    may be missing, so that gradients or moments of a single network can be converted too.
    """
    flipped = dict(tensors)
    for layer in IMAGE_INPUTS:
        if f"{layer}/kernel" in flipped:
            flipped[f"{layer}/kernel"] = _flip_inputs(flipped[f"{layer}/kernel"])
    for layer in IMAGE_OUTPUTS:
        for name in {f"{layer}/kernel", f"{layer}/bias"} & flipped.keys():
            x = flipped[name]  # The last axis has 3 values, and then 3 gates if the layer is gated.
            flipped[name] = x.reshape(*x.shape[:-1], -1, 3)[..., ::-1].reshape(x.shape)
    power_vector = "discriminator/spectral/patch1/v"  # Flattened in the order of kernel inputs.
    if power_vector in flipped:
        kernel = flipped["discriminator/params/patch1/kernel"]
        v = flipped[power_vector].reshape(*kernel.shape[:3], 1)
        flipped[power_vector] = _flip_inputs(v).ravel()
    return flipped


def _flip_inputs(kernel: np.ndarray) -> np.ndarray:
    return np.concatenate([kernel[:, :, 2::-1], kernel[:, :, 3:]], axis=2)
