"""Descriptions of weights: a summary, and a table of all tensors."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from deepfill_jax import weights
from deepfill_jax.convert.layout import Conversion
from deepfill_jax.tensors import PyTree, flatten


def describe(conversion: Conversion) -> dict[str, Any]:
    """Returns architecture, sizes and metadata of a model as a JSON object."""
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
    """Returns the number of elements of all tensors of a tree."""
    return sum(x.size for x in jax.tree.leaves(tree))


def lines(description: Mapping[str, Any]) -> Iterator[str]:
    """Formats a description as text, with one line per value; None is shown as "none"."""
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
    """Yields the lines of a tab-separated table of the networks' tensors.

    The columns are the name in the source, our name, the shape and a checksum. The checksum is the
    first 16 digits of the SHA-256 of our tensor as little-endian float32.
    """
    yield "source\ttensor\tshape\tsha256"
    for name, x in sorted(flatten(weights.networks(conversion.model)).items()):
        digest = hashlib.sha256(np.asarray(x, "<f4").tobytes()).hexdigest()[:16]
        shape = "x".join(map(str, x.shape))
        yield f"{conversion.origins.get(name, 'computed')}\t{name}\t{shape}\t{digest}"
