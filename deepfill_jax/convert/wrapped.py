"""Normalises the names in PyTorch state dicts: wrapped modules, bare generators, EMA generators.

These functions use names only and accept values of any type.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from deepfill_jax.errors import UsageError

Value = TypeVar("Value")

# Prefixes that DataParallel, mmengine's averaged models and torch.compile add to names.
_WRAPPERS = ("module", "_orig_mod")
_STATES = ("state_dict", "model_state_dict", "model")
_AVERAGE_COUNTERS = ("generator_ema.steps",)


def find_state(content: Any) -> Any:
    """Returns the state dict under one of the usual keys of a file, or else its whole content."""
    for key in _STATES if isinstance(content, Mapping) else ():
        if isinstance(content.get(key), Mapping):
            return content[key]
    return content


def unwrap(state: Mapping[str, Value]) -> dict[str, Value]:
    """Removes wrappers and the common prefix from names, and keeps their order.

    `module.generator._orig_mod.stage1.x` becomes `stage1.x` if all names begin with `generator`.

    Raises:
        UsageError: Two names are equal without their wrappers.
    """
    parts = {
        name: [part for part in str(name).split(".") if part not in _WRAPPERS] for name in state
    }
    while parts and all(len(x) > 1 for x in parts.values()):
        if len({x[0] for x in parts.values()}) > 1:
            break
        parts = {name: x[1:] for name, x in parts.items()}
    plain = {".".join(x): state[name] for name, x in parts.items()}
    if len(plain) < len(state):
        raise UsageError("Several tensors of the file have the same name without their wrappers.")
    return plain


def choose_generator(
    state: Mapping[str, Value], choice: str | None, *, source: str
) -> dict[str, Value]:
    """Returns the tensors of one generator as `generator.*`, and those of the other networks.

    Args:
        state: State dict whose names have no wrappers, see `unwrap`.
        choice: "generator" or "generator_ema"; None if the file holds only one of them.
        source: Name of the file, for messages.

    Raises:
        UsageError: The file holds both and `choice` is None, or it does not hold the chosen one.
    """
    if any(name.startswith(("stage1.", "stage2.")) for name in state):  # A bare generator.
        state = {f"generator.{name}": x for name, x in state.items()}
    generators = [
        name
        for name in ("generator", "generator_ema")
        if any(x.startswith(f"{name}.") for x in state)
    ]
    if choice is None and len(generators) > 1:
        raise UsageError(
            f"{source} holds two generators: generator, and generator_ema, its moving average, "
            f"which is usually better; choose one, for example {source}@generator_ema."
        )
    if choice is not None and choice not in generators:
        there = ", ".join(generators) or "none with a known name"
        raise UsageError(f"{source} does not hold {choice}; its generators are: {there}.")
    chosen = choice or (generators or ["generator"])[0]
    others = {
        name: x
        for name, x in state.items()
        if not name.startswith(("generator.", "generator_ema.")) and name not in _AVERAGE_COUNTERS
    }
    own = {
        f"generator.{name.removeprefix(f'{chosen}.')}": x
        for name, x in state.items()
        if name.startswith(f"{chosen}.") and name not in _AVERAGE_COUNTERS
    }
    return own | others


def is_bare_nipponjo(names: Collection[str], layers: Collection[str]) -> bool:
    """Whether names without wrappers are of nipponjo's generator, given its layers' names."""
    return any(f"{layer}.conv.weight" in names for layer in layers)
