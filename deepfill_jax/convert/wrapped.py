"""State dicts as they are saved: wrapped modules, bare generators, running averages.

Works on names only; values are whatever the file holds.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from deepfill_jax.errors import UsageError

Value = TypeVar("Value")

# What DataParallel, mmengine's averaged models and torch.compile put before a module's names.
_WRAPPERS = ("module", "_orig_mod")
_STATES = ("state_dict", "model_state_dict", "model")
_AVERAGE_COUNTERS = ("generator_ema.steps",)


def find_state(content: Any) -> Any:
    """Returns the state dict in the content of a file: that under a usual key, or all of it."""
    for key in _STATES if isinstance(content, Mapping) else ():
        if isinstance(content.get(key), Mapping):
            return content[key]
    return content


def unwrap(state: Mapping[str, Value]) -> dict[str, Value]:
    """Removes wrappers from names, and what all names begin with; the order stays.

    `module.generator._orig_mod.stage1.x` becomes `stage1.x` if all names begin with `generator`.

    Raises:
        UsageError: Two names become the same.
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
    """Returns the names of one generator as `generator.*`, beside those of other networks.

    Args:
        state: Names without wrappers, see `unwrap`.
        choice: "generator" or "generator_ema"; None if the file holds only one of them.
        source: Name of the file, for messages.

    Raises:
        UsageError: The file holds both and none is chosen, or it does not hold the chosen one.
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
            f"{source} holds two generators: generator, and generator_ema, its running average, "
            f"which is usually the better one; choose one as {source}@generator_ema."
        )
    if choice is not None and choice not in generators:
        there = ", ".join(generators) or "none that is known"
        raise UsageError(f"{source} holds no {choice}; its generators are: {there}.")
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
    """Whether names without wrappers are a generator of nipponjo's, given its layers' names."""
    return any(f"{layer}.conv.weight" in names for layer in layers)
