"""The portable model file: one safetensors file with JSON metadata. No code is run to read it.

Tensors are named by their path in the parameter tree, "generator/coarse/encode1/kernel"; those of
a discriminator, if there is one, "discriminator/params/..." and "discriminator/spectral/...".
The metadata entry "deepfill_jax" is a JSON object: architecture, widths and what is known about
the training.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from deepfill_jax.errors import UsageError
from deepfill_jax.models import Discriminator, Generator, Variant, make_variant

PyTree = Any
METADATA_KEY = "deepfill_jax"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Model:
    """An architecture with its weights."""

    variant: Variant
    generator: PyTree  # The generator's parameters.
    discriminator: PyTree | None = None  # {"params": ..., "spectral": ...}.
    # What a reader should know: source, recipe, step, data, licence. Values are JSON.
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def save(path: str | Path, model: Model, *, dtype: np.typing.DTypeLike = np.float32) -> None:
    """Writes a model file; the generator's tensors are stored as `dtype`.

    Raises:
        UsageError: It cannot be written there.
    """
    tree = {"generator": jax.tree.map(lambda x: np.asarray(x, dtype), model.generator)}
    if model.discriminator is not None:
        tree["discriminator"] = jax.tree.map(np.asarray, model.discriminator)
    description = {
        **model.about,
        "format": FORMAT,
        "architecture": model.variant.name,
        "width": model.variant.width,
        "discriminator_width": model.variant.discriminator_width,
    }
    tensors = {name: np.ascontiguousarray(x) for name, x in flatten(tree).items()}
    path = Path(path)
    unfinished = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(tensors, unfinished, {METADATA_KEY: json.dumps(description)})
        unfinished.replace(path)  # Whoever reads it never sees half a file.
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path} cannot be written: {error}.") from error


def load(path: str | Path) -> Model:
    """Reads a model file; every tensor comes back as float32.

    Raises:
        UsageError: There is no such file, it is not a model file of ours, or its tensors are not
            those of the architecture that it names.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"There is no model file {path}.")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            description = json.loads((file.metadata() or {})[METADATA_KEY])
            is_newer = description.pop("format") > FORMAT
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{path} is not a model file of deepfill_jax ({error}); weights of other projects go "
            "through `python -m deepfill_jax.convert`."
        ) from error
    if is_newer:
        raise UsageError(f"{path} was written by a newer deepfill_jax; upgrade this one.")
    variant = make_variant(
        description.pop("architecture"),
        width=description.pop("width"),
        discriminator_width=description.pop("discriminator_width"),
    )
    with_discriminator = any(name.startswith("discriminator/") for name in found)
    expected = expected_tensors(variant, discriminator=with_discriminator)
    check_tensors({n: x.shape for n, x in found.items()}, expected, source=str(path))
    tree = unflatten({name: x.astype(np.float32) for name, x in found.items()})
    return Model(variant, tree["generator"], tree.get("discriminator"), description)


def flatten(tree: PyTree) -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(tensors: Mapping[str, Any]) -> PyTree:
    """{"a/b": x} -> {"a": {"b": x}}."""
    return traverse_util.unflatten_dict(dict(tensors), sep="/")


def expected_tensors(variant: Variant, *, discriminator: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of an architecture, without computing any."""
    image, mask = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    key = jax.random.key(0)
    tree = {"generator": jax.eval_shape(Generator(variant).init, key, image, mask)["params"]}
    if discriminator:
        tree["discriminator"] = jax.eval_shape(Discriminator(variant).init, key, image, mask)
    return {name: x.shape for name, x in flatten(tree).items()}


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
