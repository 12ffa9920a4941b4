"""Starting from those weights of a model that fit other networks (`config.init_partial`)."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from deepfill_jax.errors import UsageError
from deepfill_jax.train import freezing
from deepfill_jax.train.state import NetState, TrainState
from deepfill_jax.weights import Model

logger = logging.getLogger(__name__)

PyTree = Any


def fit(model: Model, state: TrainState, source: str) -> Model:
    """Returns a model with the shapes of a state; logs which arrays come from the given model.

    An array is taken if the model has one of the same path and shape, otherwise the state's stays.
    Adam's moments of a network are taken only if all of its parameters are.

    Args:
        model: The weights; its variant is not changed.
        state: The state of step 0.
        source: Where the weights came from, for the messages.

    Raises:
        UsageError: No parameter of the generator fits.
    """
    generator, complete = _merge("generator", state.generator, {"params": model.generator})
    fitted = {"generator"} if complete else set()
    discriminator = model.discriminator
    if discriminator is not None:
        discriminator, complete = _merge("discriminator", state.discriminator, discriminator)
        fitted |= {"discriminator"} if complete else set()
    else:
        logger.info("%s has no discriminator: all of it stays at its initial values.", source)
    if generator is None:
        raise UsageError(
            f"config.init_from={source}: no parameter of its generator has the path and shape of "
            "one of the config's generator, so nothing can be taken from it."
        )
    for name in sorted(model.moments.keys() - fitted):
        logger.info("Adam's moments of the %s start at 0, because it is not taken whole.", name)
    moments = {name: x for name, x in model.moments.items() if name in fitted}
    return dataclasses.replace(
        model, generator=generator["params"], discriminator=discriminator, moments=moments
    )


def _merge(
    network: str, net: NetState, given: Mapping[str, PyTree]
) -> tuple[dict[str, PyTree] | None, bool]:
    """Returns the trees in `given` with the shapes of `net`, and whether all parameters are taken.

    The trees are None if no parameter is taken.
    """
    values = {kind: dict(freezing.paths(network, tree)) for kind, tree in given.items()}

    def pick(kind: str, tree: PyTree) -> PyTree:
        def take(keys: tuple[Any, ...], leaf: jax.Array) -> Any:
            value = values[kind].get(freezing.path_of(network, keys))
            return value if _fits(value, leaf) else leaf

        return jax.tree_util.tree_map_with_path(take, tree)

    shapes = {name: x.shape for name, x in freezing.paths(network, net.params)}
    own = values["params"]
    taken = [name for name, x in freezing.paths(network, net.params) if _fits(own.get(name), x)]
    left = [name for name in shapes if name not in set(taken)]
    whole = ", ".join(_folders(taken, left)) or "none"
    logger.info("%s: %d of %d arrays are taken: %s.", network, len(taken), len(shapes), whole)
    reasons = [
        f"{name} ({_shape(own[name].shape)} in the model, {_shape(shapes[name])} in the config)"
        if name in own
        else f"{name} (not in the model)"
        for name in left
    ]
    if left:
        text = ", ".join(reasons)
        logger.info("%s: %d arrays stay at their initial values: %s.", network, len(left), text)
    if unused := [name for name in own if name not in shapes]:
        text = ", ".join(unused)
        logger.info("%s: %d arrays of the model are not used: %s.", network, len(unused), text)
    if not taken:
        return None, False
    return {kind: pick(kind, getattr(net, kind)) for kind in given}, not left


def _fits(value: Any, target: jax.Array) -> bool:
    return value is not None and jnp.shape(value) == target.shape


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _folders(names: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    """Yields paths, where the largest folders that contain none of the others stand for theirs."""
    before = ""
    for name in names:
        parts = name.split("/")
        tops = ("/".join(parts[: i + 1]) for i in range(len(parts)))
        top = next(x for x in tops if not any(other.startswith(f"{x}/") for other in others))
        if top != before:
            yield top
        before = top
