"""Finds, loads and checks configs, whose keys are in config_table.py, without defaults.

A config is a Python file with a function `get_config` that returns a ConfigDict. The function may
take one string argument, which chooses a variant: `places:official`.
"""

import difflib
import runpy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfill_jax import renamed
from deepfill_jax.config_table import KEYS, Number
from deepfill_jax.errors import UsageError
from deepfill_jax.local_paths import require_local

if TYPE_CHECKING:
    from ml_collections import ConfigDict

PACKAGE = Path(__file__).parent
# An installed package contains the configs; in the repository, they are next to the package.
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")
WEIGHTS = ("https://", "http://", "hf://")  # Addresses of weights, see published/addresses.py.


def names() -> list[str]:
    """Returns the names of the configs that come with the package, sorted."""
    return sorted(path.stem for path in _folder().glob("*.py"))


def find(name_or_path: str) -> str:
    """Finds the file of a config by its name; a path of a file stays as it is.

    A name takes precedence over a file of the same name, which is written "./NAME".

    Args:
        name_or_path: NAME or FILE, or with a variant NAME:VARIANT or FILE:VARIANT.

    Returns:
        FILE or FILE:VARIANT.

    Raises:
        UsageError: The config does not exist.
    """
    name, colon, variant = name_or_path.partition(":")
    path = _folder() / f"{name}.py" if name in names() else Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(path.stem, names(), n=1)
        hint = f", did you mean {near[0]}?" if near else "."
        raise UsageError(
            f"There is no config {name}{hint} The package has {', '.join(names())}; give any other "
            "config as the path of its file."
        )
    return f"{path}{colon}{variant}"


def load(name_or_path: str) -> "ConfigDict":
    """Loads a config; its values can be changed before `train` or `evaluate` gets it.

    Args:
        name_or_path: See `find`; for example "places:official".

    Raises:
        UsageError: The config does not exist, or `check` refuses it.
        ValueError: The config does not have this variant.
    """
    path, colon, variant = find(name_or_path).partition(":")
    values = runpy.run_path(path)["get_config"](*([variant] if colon else []))
    check(values)
    return values


def _folder() -> Path:
    return next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])


def check(config: Mapping[str, Any]) -> None:
    """Checks that a config has exactly the keys of `KEYS`, valid values, and local paths.

    Raises:
        UsageError: The config differs. The message lists every difference; for each unknown key, it
            suggests the most similar existing one. Or a path is remote storage.
    """
    problems = _problems(config, KEYS, "config")
    if problems:
        raise UsageError("; ".join(problems) + ".")
    _check_paths(config)


def _check_paths(config: Mapping[str, Any]) -> None:
    data = config["data"]
    for key in ("source", "val_source", "edges", "val_edges"):
        kind, _, place = data[key].partition(":")
        if kind != "tfds":
            local = place if kind in ("folder", "flist") else data[key]
            require_local(f"config.data.{key}", local)
    require_local("config.masks.folder", config["masks"]["folder"])
    if not config["init_from"].startswith(WEIGHTS):
        require_local("config.init_from", config["init_from"])


def check_overrides(arguments: Iterable[str]) -> None:
    """Checks the keys of command line arguments `--config.KEY=VALUE`; other arguments are skipped.

    Raises:
        UsageError: Keys do not exist. The message lists them, each with the most similar one.
    """
    names = [argument.partition("=")[0].lstrip("-") for argument in arguments]
    known = dict(_leaves(KEYS, "config"))
    unknown = [name for name in names if name.startswith("config.") and name not in known]
    if unknown:
        listed = "; ".join(f"{name} does not exist{_hint(name, known)}" for name in unknown)
        raise UsageError(f"{listed} The keys are in deepfill_jax/config_table.py.")


def _leaves(keys: Mapping[str, Any], path: str) -> Iterator[tuple[str, type | Number]]:
    """Yields the path of every key, and its type or range."""
    for key, kind in keys.items():
        if isinstance(kind, Mapping):
            yield from _leaves(kind, f"{path}.{key}")
        else:
            yield f"{path}.{key}", kind


def _hint(name: str, known: Iterable[str]) -> str:
    """Suggests the new name of a renamed key, or a key with a similar last part or path."""
    if renamed_name := _renamed(name):
        return f", did you mean {renamed_name}?"
    # Where several paths end alike, the first one is meant.
    last = {full.rpartition(".")[2]: full for full in reversed(list(known))}
    near = difflib.get_close_matches(name.rpartition(".")[2], last, n=1)
    near = [last[part] for part in near] or difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f", did you mean {near[0]}?" if near else ""


def _renamed(name: str) -> str:
    """Returns the current name of a renamed key, or ""."""
    new_name = "config." + renamed.new_key(name.removeprefix("config."))
    return "" if new_name == name else new_name


def _problems(config: Mapping[str, Any], keys: Mapping[str, Any], path: str) -> list[str]:
    problems = []
    for key in config:
        if key not in keys:
            nearest = difflib.get_close_matches(key, keys, n=1)
            meant = _renamed(f"{path}.{key}") or (nearest and f"{path}.{nearest[0]}")
            hint = f", did you mean {meant}" if meant else ""
            problems.append(f"{path}.{key} does not exist{hint}")
    for key, kind in keys.items():
        if key not in config:
            problems.append(f"{path}.{key} is missing")
        elif isinstance(kind, Mapping):
            problems += _problems(config[key], kind, f"{path}.{key}")
        else:
            problems += _fault(f"{path}.{key}", config[key], kind)
    return problems


def _fault(path: str, value: Any, allowed: type | Number) -> list[str]:
    """Returns the error message for an invalid value; an empty string for a valid one."""
    kind = allowed.kind if isinstance(allowed, Number) else allowed
    if not _is(value, kind):
        return [f"{path}={value!r} is {type(value).__name__}, must be {kind.__name__}"]
    if isinstance(allowed, Number) and value not in allowed:
        return [f"{path}={value!r} must be {allowed}"]
    return []


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
