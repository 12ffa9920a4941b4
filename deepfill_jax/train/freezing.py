"""Parameters that training leaves as they are, by patterns of their paths (`config.freeze`)."""

import difflib
import fnmatch
from collections.abc import Iterator, Set
from pathlib import PurePosixPath
from typing import Any

import jax

from deepfill_jax.errors import UsageError

PyTree = Any
NETWORKS = "generator", "discriminator"


def paths(network: str, params: PyTree) -> Iterator[tuple[str, Any]]:
    """Yields path and value of each parameter, such as "generator/coarse/encode1/kernel"."""
    for keys, value in jax.tree_util.tree_leaves_with_path(params):
        yield path_of(network, keys), value


def path_of(network: str, keys: tuple[Any, ...]) -> str:
    """Returns the path of a parameter from its keys in the tree of a network's parameters."""
    return f"{network}/{jax.tree_util.keystr(keys, simple=True, separator='/')}"


def match(patterns: str, names: Set[str]) -> frozenset[str]:
    """Returns the paths of the frozen parameters.

    Args:
        patterns: Glob patterns, separated by commas, of paths or of folders of parameters; "*" also
            matches "/". Empty: none is frozen.
        names: The paths of all parameters, see `paths`.

    Raises:
        UsageError: A pattern matches nothing. The message names the most similar paths.
    """
    frozen: set[str] = set()
    for pattern in filter(None, map(str.strip, patterns.split(","))):
        found = {
            name
            for name in names
            if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}/*")
        }
        if not found:
            folders = {f"{parent}" for name in names for parent in PurePosixPath(name).parents}
            near = difflib.get_close_matches(pattern, sorted((folders | names) - {"."}), n=3)
            hint = f", did you mean {' or '.join(near)}?" if near else "."
            raise UsageError(
                f"config.freeze: {pattern} matches no parameter{hint} Their paths are listed in "
                "parameters.txt in the folder of a run."
            )
        frozen |= found
    return frozenset(frozen)


def choose(frozen: Set[str], network: str, if_frozen: PyTree, otherwise: PyTree) -> PyTree:
    """Returns the frozen leaves of one tree of a network's parameters, the others of another."""
    if not frozen:
        return otherwise
    return jax.tree_util.tree_map_with_path(
        lambda keys, kept, changed: kept if path_of(network, keys) in frozen else changed,
        if_frozen,
        otherwise,
    )
