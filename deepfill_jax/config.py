"""What a config holds: every key and its type. The values are in `configs/`, all explicit."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deepfill_jax import renamed
from deepfill_jax.errors import UsageError

OPTIMIZER = {  # The arguments of train/state.make_optimizer.
    "learning_rate": float,
    "beta1": float,
    "beta2": float,
    "warmup_steps": int,
    "decay_steps": int,
    "clip_norm": float,
}
KEYS = {
    "seed": int,  # Of initial parameters, order of pictures, crops and training masks.
    "deterministic": bool,  # Whether a run repeats bit for bit on GPUs too, more slowly.
    "image_size": int,  # Pixels of a side; a multiple of 8.
    "batch_size": int,  # Global, over all processes.
    "num_steps": int,  # One step is one update of each network.
    "init_from": str,  # Weights to start from, see convert/sources.py; "" draws parameters.
    "model": {
        "architecture": str,  # A name of models/variants.py, which has the differences.
        "width": int,  # Channels after the first gated convolution; published 24.
        "discriminator_width": int,  # Published 64.
        "init": str,  # "published", or "unit_variance", from which the generator learns faster.
        "dtype": str,  # Of the arithmetic: "float32" or "bfloat16".
        "guided": bool,  # By sketches of the hole, see data.edges.
        "remat": bool,  # Less memory, about a third more time.
    },
    "loss": {  # losses.Recipe
        "discriminator": float,
        "adversarial": float,
        "l1_whole": float,
        "l1_hole": float,
        "l1_known": float,
        "concat_real_fake": bool,
        "adversarial_ramp_steps": int,
        "perceptual": float,
        "perceptual_network": str,
    },
    "optimizer": OPTIMIZER,  # Of the generator.
    # Of the discriminator: each value that is not set follows the generator's.
    "discriminator_optimizer": OPTIMIZER,
    "ema_decay": float,  # Of the generator's running average; 0 for none.
    "grad_accum_steps": int,  # Parts of a batch, run one after the other to save memory.
    "data": {
        "source": str,  # folder:PATH, flist:FILE or tfds:NAME[:SPLIT]
        "val_source": str,
        "edges": str,  # Of guided models: folder:PATH of the source's edge maps (data/edges.py),
        "val_edges": str,  # and of the val_source's.
        "sketch_probability": float,  # Of examples with a sketch; others have an empty one.
        "crop_size": int,  # data.examples.Preprocessing
        "enlarge": bool,
        "flip": bool,
    },
    "masks": {
        "weights": {  # Weights of the kinds in the mix; masks.py draws them.
            "box": float,
            "strokes": float,
            "box_and_strokes": float,
            "irregular": float,
            "folder": float,
        },
        "min_area": float,  # Of irregular masks, fraction of the picture.
        "max_area": float,
        "folder": str,  # Of mask files, 255 in the hole.
    },
    "eval": {
        "seed": int,  # Of the frozen crops and masks.
        "batch_size": int,
        "num_examples": int,  # The first so many; 0 for all.
        "every": int,  # Steps; 0 for never.
    },
    "log_every": int,
    "checkpoint_every": int,
    "keep_latest": int,  # Checkpoints that are kept because they are new,
    "keep_best": int,  # and because their hole L1 on the validation set was lowest.
    "profile_step": int,  # The step from which 5 are traced; 0 for none.
}


def check(config: Mapping[str, Any]) -> None:
    """Checks that a config has all keys, no others, and values of the right types.

    Raises:
        UsageError: It has not; every difference is listed, unknown keys with the nearest real one.
    """
    problems = _problems(config, KEYS, "config")
    if problems:
        raise UsageError("; ".join(problems) + ".")


def check_overrides(arguments: Iterable[str]) -> None:
    """Checks the keys of command line arguments `--config.KEY=VALUE`; other arguments are skipped.

    Raises:
        UsageError: A key does not exist; every one is listed, with the nearest real one.
    """
    names = [argument.partition("=")[0].lstrip("-") for argument in arguments]
    known = dict(_leaves(KEYS, "config"))
    unknown = [name for name in names if name.startswith("config.") and name not in known]
    if unknown:
        listed = "; ".join(f"{name} does not exist{_hint(name, known)}" for name in unknown)
        raise UsageError(f"{listed} The keys are in deepfill_jax/config.py.")


def _leaves(keys: Mapping[str, Any], path: str) -> Iterator[tuple[str, type]]:
    """Yields every key with its path, and its type."""
    for key, kind in keys.items():
        if isinstance(kind, Mapping):
            yield from _leaves(kind, f"{path}.{key}")
        else:
            yield f"{path}.{key}", kind


def _hint(name: str, known: Iterable[str]) -> str:
    """The key that was meant: the new name, one with nearly the same path or last part."""
    if renamed_name := _renamed(name):
        return f", did you mean {renamed_name}?"
    # Where several paths end alike, the first one is meant.
    last = {full.rpartition(".")[2]: full for full in reversed(list(known))}
    near = difflib.get_close_matches(name.rpartition(".")[2], last, n=1)
    near = [last[part] for part in near] or difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f", did you mean {near[0]}?" if near else ""


def _renamed(name: str) -> str:
    """The name of today of a key that has been renamed, or ""."""
    found = "config." + renamed.new_key(name.removeprefix("config."))
    return "" if found == name else found


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
        elif not _is(config[key], kind):
            found = type(config[key]).__name__
            problems.append(f"{path}.{key}={config[key]!r} is {found}, must be {kind.__name__}")
    return problems


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
