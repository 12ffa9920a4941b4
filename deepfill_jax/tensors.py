"""Tensors by path in the parameter tree: expected names and shapes of an architecture."""

import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from deepfill_jax.errors import UsageError
from deepfill_jax.models import Discriminator, Generator, Variant

PyTree = Any
# Prefixes of the tensors that an optimizer trains.
PARAMS = {"generator": "generator/", "discriminator": "discriminator/params/"}


def flatten(tree: PyTree) -> dict[str, Any]:
    """Flattens a tree: {"a": {"b": x}} becomes {"a/b": x}."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(tensors: Mapping[str, Any]) -> PyTree:
    """Builds a tree from paths: {"a/b": x} becomes {"a": {"b": x}}."""
    return traverse_util.unflatten_dict(dict(tensors), sep="/")


def subtree(tensors: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Returns the tensors whose names begin with `path`, without this prefix."""
    return {name.removeprefix(path): x for name, x in tensors.items() if name.startswith(path)}


def expected_tensors(
    variant: Variant, *, discriminator: bool, moments: Collection[str] = ()
) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of all tensors of an architecture, without computing tensors.

    Args:
        variant: The architecture.
        discriminator: Whether to include the discriminator.
        moments: Networks whose Adam moments to include: "generator", "discriminator".
    """
    tree = {"generator": variable_shapes(Generator(variant))["params"]}
    if discriminator:
        tree["discriminator"] = variable_shapes(Discriminator(variant))
    shapes = {name: x.shape for name, x in flatten(tree).items()}
    for net in moments:
        params = subtree(shapes, PARAMS[net])
        shapes[f"moments/{net}/count"] = ()
        shapes |= {f"moments/{net}/{m}/{n}": x for m in ("mu", "nu") for n, x in params.items()}
    return shapes


@functools.lru_cache
def variable_shapes(network: Generator | Discriminator) -> dict[str, Any]:
    """Returns shapes and dtypes of a network's variables; tracing takes a second, so it is cached.

    Callers must not change the result.
    """
    image, mask = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    sketch = mask if network.variant.guided else None
    return jax.eval_shape(network.init, jax.random.key(0), image, mask, sketch)


def check_tensors(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, source: str
) -> None:
    """Compares names and shapes of tensors.

    Args:
        found: Shapes of the tensors of a source, by name.
        expected: Shapes of the expected tensors, by name.
        source: Name of the source, for the message.

    Raises:
        UsageError: They differ. The message lists every missing, extra and misshapen tensor, or
            says that no name matches.
    """
    if not expected.keys() & found.keys():
        raise UsageError(
            f"{source} holds the weights of another network: none of the {len(expected)} expected "
            f"tensors is among its {len(found)}{', such as ' + min(found) if found else ''}."
        )
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    misshapen = [
        f"{name} (is {found[name]}, must be {expected[name]})"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    problems = {"missing": missing, "extra": extra, "misshapen": misshapen}
    if any(problems.values()):
        listed = "; ".join(
            f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names
        )
        raise UsageError(f"{source} holds the weights of another network. {listed}.")
