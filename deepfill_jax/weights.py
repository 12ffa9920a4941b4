"""The portable model file: one safetensors file with JSON metadata. No code is run to read it.

Tensors are named by their path in the parameter tree, "generator/coarse/encode1/kernel"; those of
a discriminator, if there is one, "discriminator/params/..." and "discriminator/spectral/..."; what
Adam remembers, if it is kept, "moments/generator/mu/..." and so on. The metadata entry
"deepfill_jax" is a JSON object: architecture, widths and what is known about the weights. The entry
"format" is "flax", as in the Flax files of Hugging Face libraries: kernels are [height, width, in,
out], which a PyTorch reader must transpose. Files without it (before version 0.2) are read as well.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from deepfill_jax import model_metadata, trained
from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.errors import UsageError
from deepfill_jax.models import Variant, make_variant
from deepfill_jax.tensors import (
    PARAMS,
    PyTree,
    check_tensors,
    expected_tensors,
    flatten,
    subtree,
    unflatten,
)

METADATA_KEY = "deepfill_jax"
FORMAT = 1
LAYOUT = {"format": "flax"}  # The framework whose tensor layout a file has, for other readers.


@dataclasses.dataclass(frozen=True)
class Model:
    """An architecture with its weights."""

    variant: Variant
    generator: PyTree  # The generator's parameters.
    discriminator: PyTree | None = None  # {"params": ..., "spectral": ...}.
    # What a reader should know, values are JSON. Of a training: step, batch_size, image_size,
    # recipe, data. Of a conversion: converted_from, release, step. And, if they are known, license
    # and parent, the name of the model that the weights were made from.
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # What Adam remembers of "generator" and "discriminator", if it is kept: {"count": updates,
    # "mu", "nu": trees like the parameters}, the fields of optax.ScaleByAdamState.
    moments: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)


def save(path: str | Path, model: Model, *, dtype: np.typing.DTypeLike = np.float32) -> None:
    """Writes a model file; the networks are stored as `dtype`, moments as they are.

    Raises:
        UsageError: It cannot be written there.
    """
    tree = jax.tree.map(lambda x: np.asarray(x).astype(dtype), networks(model))
    if model.moments:
        tree["moments"] = jax.tree.map(np.asarray, dict(model.moments))
    description = {
        **model.metadata,
        "format": FORMAT,
        "architecture": model.variant.name,
        "width": model.variant.width,
        "discriminator_width": model.variant.discriminator_width,
        "guided": model.variant.guided,
    }
    tensors = {name: np.asarray(x, order="C") for name, x in flatten(tree).items()}
    content = with_metadata(safetensors.numpy.save(tensors), description)
    with atomic_write(Path(path)) as unfinished:
        unfinished.write_bytes(content)


def with_metadata(content: bytes, description: Mapping[str, Any]) -> bytes:
    """Replaces the metadata of a safetensors file; tensors stay bit for bit.

    `safetensors` itself writes the entries in random order, which would give the same model
    another checksum each time.

    Args:
        content: The file: eight bytes with the size of the header, the header, the tensors.
        description: The JSON object of the entry "deepfill_jax".
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header.pop("__metadata__", None)
    metadata = LAYOUT | {METADATA_KEY: json.dumps(description)}
    text = json.dumps({"__metadata__": metadata} | header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # Tensors start at a multiple of eight bytes.
    return len(text).to_bytes(8, "little") + text + content[end:]


def load(name_or_path: str | Path) -> Model:
    """Reads a model file; every tensor comes back as float32.

    Args:
        name_or_path: One of `trained.names`, or a file.

    Raises:
        UsageError: There is no such file, it is not a model file of ours, its metadata is wrong,
            its tensors are not those of the architecture that it names, or they are not finite.
    """
    path = trained.find(name_or_path)
    if not path.is_file():
        names = ", ".join(trained.names()) or "none"
        raise UsageError(f"There is no model file {path}; by name there are {names}.")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            described = (file.metadata() or {})[METADATA_KEY]
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is not a model file of deepfill_jax ({error}); weights of other projects go "
            "through `python -m deepfill_jax.convert`."
        ) from error
    description = model_metadata.parse(described, source=str(path))
    if description.pop("format") > FORMAT:
        raise UsageError(f"{path} was written by a newer deepfill_jax; upgrade this one.")
    variant = make_variant(
        description.pop("architecture"),
        width=description.pop("width"),
        discriminator_width=description.pop("discriminator_width"),
        guided=description.pop("guided", False),  # Files of before there were guided models.
    )
    parts = {name.split("/")[0] for name in found}
    expected = expected_tensors(
        variant,
        discriminator="discriminator" in parts,
        moments=[net for net in PARAMS if net in parts and subtree(found, f"moments/{net}/")],
    )
    check_tensors({n: x.shape for n, x in found.items()}, expected, source=str(path))
    model_metadata.check_values(found, source=str(path))
    tree = unflatten(
        {
            n: x.astype(np.int32 if n.endswith("/count") else np.float32, copy=False)
            for n, x in found.items()
        }
    )
    return Model(
        variant,
        tree["generator"],
        tree.get("discriminator"),
        description,
        tree.get("moments", {}),
    )


def is_model_file(path: Path) -> bool:
    """Whether a file, of whatever suffix, begins as safetensors files do: with a JSON header."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def networks(model: Model) -> dict[str, PyTree]:
    """The generator and, if there is one, the discriminator, as a tree."""
    discriminator = {} if model.discriminator is None else {"discriminator": model.discriminator}
    return {"generator": model.generator, **discriminator}
