"""What is known of weights: a description to read, and a line for every tensor."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from deepfill_jax import weights
from deepfill_jax.convert.layout import Conversion
from deepfill_jax.tensors import PyTree, flatten


def describe(conversion: Conversion) -> dict[str, Any]:
    """Architecture, sizes and what the model is about, as JSON; None is "none"."""
    model = conversion.model
    discriminator = model.discriminator
    return {
        "architecture": model.variant.name,
        "width": model.variant.width,
        "discriminator_width": model.variant.discriminator_width,
        "guided": model.variant.guided,
        "parameters": {
            "generator": count(model.generator),
            "discriminator": count(discriminator["params"]) if discriminator else None,
        },
        "adam_updates": {net: int(x["count"]) for net, x in model.moments.items()} or None,
        "dtype": conversion.dtype,
        **model.metadata,
    }


def count(tree: PyTree) -> int:
    """Numbers in all tensors of a tree."""
    return sum(x.size for x in jax.tree.leaves(tree))


def lines(description: Mapping[str, Any]) -> Iterator[str]:
    """A description as text, a fact a line."""
    facts = dict(_facts(description))
    width = max(map(len, facts))
    for key, value in facts.items():
        shown = "none" if value is None else f"{value:,}" if type(value) is int else value
        yield f"{key:{width}}  {shown}"


def _facts(description: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in description.items():
        if isinstance(value, Mapping):
            yield from _facts(value, f"{path}{key}.")
        else:
            yield path + key, value


def table(conversion: Conversion) -> Iterator[str]:
    """The networks' tensors, a line each: theirs, ours, shape and checksum, between tabs.

    The checksum is the beginning of the SHA-256 of our tensor as float32, little-endian.
    """
    yield "source\ttensor\tshape\tsha256"
    for name, x in sorted(flatten(weights.networks(conversion.model)).items()):
        digest = hashlib.sha256(np.asarray(x, "<f4").tobytes()).hexdigest()[:16]
        shape = "x".join(map(str, x.shape))
        yield f"{conversion.origins.get(name, 'computed')}\t{name}\t{shape}\t{digest}"
