"""Names that changed in version 0.2: old files are readable, old flags and keys raise errors."""

from collections.abc import Iterable, Mapping
from typing import Any

from deepfill_jax.errors import UsageError

CONFIG_KEYS = {
    "average_decay": "ema_decay",
    "microbatches": "grad_accum_steps",
    "model.checkpoint_stages": "model.remat",
    "loss.joint_pass": "loss.concat_real_fake",
    "loss.l1_valid": "loss.l1_known",
    "data.edge_share": "data.sketch_probability",
    "masks.kinds": "masks.weights",
    "masks.weights.box_or_strokes": "masks.weights.box_and_strokes",
}
FLAGS = {
    "--beside": "--compare",
    "--results": "--predictions",
    "--moments": "--optimizer-state",
    "--queue": "--max-queue",
    "--licence": "--license",
}
METADATA = {"licence": "license"}  # Metadata keys of model files.


def new_key(key: str) -> str:
    """Returns the current name of a config key: "masks.weights.box" for "masks.kinds.box"."""
    for old, new in CONFIG_KEYS.items():
        if key == old or key.startswith(f"{old}."):
            key = new + key.removeprefix(old)
    return key


def with_new_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the keys of a run's config.json, a nested dictionary, to their current names."""
    renamed: dict[str, Any] = {}

    def rename(tree: Mapping[str, Any], path: str) -> None:
        for name, value in tree.items():
            key = f"{path}{name}"
            if isinstance(value, Mapping):
                rename(value, f"{key}.")
                continue
            *folders, last = new_key(key).split(".")
            node = renamed
            for folder in folders:
                node = node.setdefault(folder, {})
            node[last] = value

    rename(config, "")
    return renamed


def with_new_entries(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the entries of a model file's metadata, and the keys of its training recipe."""
    entries = {METADATA.get(name, name): value for name, value in metadata.items()}
    if isinstance(entries.get("recipe"), Mapping):  # The config's `loss`.
        entries["recipe"] = with_new_keys({"loss": entries["recipe"]}).get("loss", {})
    return entries


def refuse_old_flags(arguments: Iterable[str]) -> None:
    """Checks a command line for flags that have been renamed.

    Raises:
        UsageError: A flag has been renamed; the message contains the new name.
    """
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag in FLAGS:
            raise UsageError(f"{flag} was renamed to {FLAGS[flag]} in version 0.2.")
