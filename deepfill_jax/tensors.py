"""Tensors by their path in the parameter tree: which an architecture has, and of what shapes."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from deepfill_jax.errors import UsageError
from deepfill_jax.models import Discriminator, Generator, Variant

PyTree = Any
# Where the tensors lie that an optimiser trains.
PARAMS = {"generator": "generator/", "discriminator": "discriminator/params/"}


def flatten(tree: PyTree) -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(tensors: Mapping[str, Any]) -> PyTree:
    """{"a/b": x} -> {"a": {"b": x}}."""
    return traverse_util.unflatten_dict(dict(tensors), sep="/")


def subtree(tensors: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The tensors whose names begin with `path`, named by what follows it."""
    return {name.removeprefix(path): x for name, x in tensors.items() if name.startswith(path)}


def expected_tensors(
    variant: Variant, *, discriminator: bool, moments: Collection[str] = ()
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of an architecture, without computing any.

    Args:
        variant: The architecture.
        discriminator: Count the discriminator's too.
        moments: Count Adam's too of these, "generator" and "discriminator".
    """
    image, mask = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    arguments = jax.random.key(0), image, mask, mask if variant.guided else None
    tree = {"generator": jax.eval_shape(Generator(variant).init, *arguments)["params"]}
    if discriminator:
        tree["discriminator"] = jax.eval_shape(Discriminator(variant).init, *arguments)
    shapes = {name: x.shape for name, x in flatten(tree).items()}
    for net in moments:
        params = subtree(shapes, PARAMS[net])
        shapes[f"moments/{net}/count"] = ()
        shapes |= {f"moments/{net}/{m}/{n}": x for m in ("mu", "nu") for n, x in params.items()}
    return shapes


def check_tensors(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, source: str
) -> None:
    """Compares names and shapes.

    Raises:
        UsageError: They differ; the message lists every missing, extra and misshapen tensor, or
            says that not one name is the same.
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
