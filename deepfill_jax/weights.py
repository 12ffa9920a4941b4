"""The portable model file: one safetensors file with JSON metadata; reading it executes no code.

Tensors are named by their path in the parameter tree, such as "generator/coarse/encode1/kernel".
The optional discriminator is in "discriminator/params/..." and "discriminator/spectral/...", and
Adam's optional moments are in "moments/generator/mu/..." and so on. The metadata entry
"deepfill_jax" is a JSON object with the architecture, its widths and facts about the weights. The
entry "format" is "flax", as in the Flax files of Hugging Face libraries: kernels are [height,
width, in, out], which a PyTorch reader must transpose. Files without it, written before version
0.2, can be read too.
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
LAYOUT = {"format": "flax"}  # The framework that defines the tensor layout, for other readers.


@dataclasses.dataclass(frozen=True)
class Model:
    """An architecture with its weights."""

    variant: Variant
    generator: PyTree  # The generator's parameters.
    discriminator: PyTree | None = None  # {"params": ..., "spectral": ...}.
    # Facts about the weights as JSON values. Training runs add step, batch_size, image_size, recipe
    # and data, conversions add converted_from, release and step. If known, there are also license
    # and parent, the name of the model that the weights were derived from. With replace_detail,
    # inpainting copies the finest detail of thick holes from the known pixels.
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Adam's moments of "generator" and "discriminator", if they are kept: {"count": number of
    # updates, "mu", "nu": trees like the parameters}, the fields of optax.ScaleByAdamState.
    moments: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)

    @property
    def guided(self) -> bool:
        """Whether the generator accepts sketches."""
        return self.variant.guided

    @property
    def architecture(self) -> str:
        """The name of the architecture."""
        return self.variant.name


def save(path: str | Path, model: Model, *, dtype: np.typing.DTypeLike = np.float32) -> None:
    """Writes a model file.

    Args:
        path: The file to write; missing folders are created.
        model: The model.
        dtype: The dtype of the networks in the file; moments keep theirs.

    Raises:
        UsageError: The file cannot be written.
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
    """Replaces the metadata of a safetensors file; the bytes of the tensors do not change.

    The `safetensors` library itself writes the entries in random order, so that files of the same
    model would have different checksums.

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
    """Reads a model file.

    Args:
        name_or_path: The name of a bundled model, see `trained.names`, or the path of a file.

    Returns:
        The model; all tensors are float32 NumPy arrays, except the int32 counts of Adam's updates.

    Raises:
        UsageError: The file does not exist, is not a model file of this package, its metadata is
            invalid, or its tensors are not finite or not those of the architecture that it names.
    """
    path = trained.find(name_or_path)
    described, found = _read(path)
    description = model_metadata.parse(described, source=str(path))
    if description.pop("format") > FORMAT:
        raise UsageError(f"{path} was written by a newer version; upgrade deepfill_jax.")
    variant = make_variant(
        description.pop("architecture"),
        width=description.pop("width"),
        discriminator_width=description.pop("discriminator_width"),
        guided=description.pop("guided", False),  # Files of earlier versions have no such key.
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


def _read(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Reads the JSON that describes a model, and its tensors by name, without checking them."""
    if not path.is_file():
        names = ", ".join(trained.names()) or "none"
        raise UsageError(f"There is no model file {path}; models by name: {names}.")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            described = (file.metadata() or {})[METADATA_KEY]
            return described, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is not a model file of deepfill_jax ({error}); convert weights of other "
            "projects with `python -m deepfill_jax.convert`."
        ) from error


def is_model_file(path: Path) -> bool:
    """Returns whether a file with any suffix starts with a JSON header, as safetensors files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def networks(model: Model) -> dict[str, PyTree]:
    """Returns the generator's parameters and, if there is one, the discriminator, as a tree."""
    discriminator = {} if model.discriminator is None else {"discriminator": model.discriminator}
    return {"generator": model.generator, **discriminator}
