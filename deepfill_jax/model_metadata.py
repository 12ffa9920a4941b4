"""Checks the metadata and weights of a model file when it is read, and names invalid entries."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deepfill_jax import renamed
from deepfill_jax.errors import UsageError
from deepfill_jax.models.generator import MULTIPLE
from deepfill_jax.models.variants import VARIANTS

MAX_WIDTH = 4096  # Published networks have widths of 24 and 64; larger values are errors.


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_WIDTH = f"an even number from 2 to {MAX_WIDTH}"
# The required type and range of each entry, in words and as a check.
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "format": ("an integer", _is_whole),
    "architecture": (
        f"one of {', '.join(VARIANTS)}",
        lambda x: isinstance(x, str) and x in VARIANTS,
    ),
    "width": (_WIDTH, lambda x: _is_whole(x) and x % 2 == 0 and 2 <= x <= MAX_WIDTH),
    "discriminator_width": (
        f"an integer from 1 to {MAX_WIDTH}",
        lambda x: _is_whole(x) and 1 <= x <= MAX_WIDTH,
    ),
    "guided": ("true or false", lambda x: isinstance(x, bool)),
    "image_size": (
        f"a positive multiple of {MULTIPLE}",
        lambda x: _is_whole(x) and x > 0 and x % MULTIPLE == 0,
    ),
    "replace_detail": ("true or false", lambda x: isinstance(x, bool)),
    "license": ("a string", lambda x: isinstance(x, str)),
    "parent": ("a string", lambda x: isinstance(x, str)),
}
# Entries that may be missing or null.
_OPTIONAL = ("guided", "image_size", "replace_detail", "license", "parent")


def parse(text: str, *, source: str) -> dict[str, Any]:
    """Reads and checks the JSON object that describes a model.

    Args:
        text: The JSON.
        source: Name of the file, for messages.

    Returns:
        The entries by their current names. Optional entries that are null are left out.

    Raises:
        UsageError: The JSON is not an object, or an entry is missing or invalid.
    """
    try:
        described: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise UsageError(f"The metadata of {source} is not JSON ({error}); {_REMEDY}.") from error
    if not isinstance(described, dict):
        raise UsageError(f"The metadata of {source} is not a JSON object; {_REMEDY}.")
    entries = renamed.with_new_entries(described)
    entries = {k: x for k, x in entries.items() if not (x is None and k in _OPTIONAL)}
    for name, (must_be, is_right) in _RULES.items():
        if name not in entries:
            if name not in _OPTIONAL:
                raise UsageError(f"The metadata of {source} has no {name}; {_OTHERS}.")
        elif not is_right(entries[name]):
            raise UsageError(
                f"The metadata of {source} has {name} {entries[name]!r:.80}, which must be "
                f"{must_be}; {_REMEDY}."
            )
    return entries


_REMEDY = "convert or export the model again"
_OTHERS = "convert weights of other projects with `python -m deepfill_jax.convert`"


def check_values(tensors: Mapping[str, np.ndarray], *, source: str) -> None:
    """Checks that weights are finite floats.

    Args:
        tensors: The tensors by name. Those whose name ends with "/count" may be integers.
        source: Name of the file, for messages.

    Raises:
        UsageError: A tensor has another type or holds NaN or infinity; up to five are named.
    """
    counts = {name for name in tensors if name.endswith("/count")}
    weights = {name: np.asarray(x) for name, x in tensors.items() if name not in counts}
    for problem, wrong in (
        ("are not floats", [n for n, x in weights.items() if not _is_float(x)]),
        ("hold NaN or infinity", [n for n, x in weights.items() if not _is_finite(x)]),
    ):
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise UsageError(
                f"{source} is damaged: tensors that {problem}: {', '.join(sorted(wrong)[:5])}"
                f"{more}; take an earlier checkpoint or another copy."
            )


def _is_float(x: np.ndarray) -> bool:
    return np.issubdtype(x.dtype, np.floating) or x.dtype.name == "bfloat16"


def _is_finite(x: np.ndarray) -> bool:
    return not _is_float(x) or bool(np.isfinite(x.astype(np.float32, copy=False)).all())
