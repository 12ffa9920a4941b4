"""The model files of both sides: random weights, each side reading them in its own format."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from peers.worker import Peer

from deepfill_jax import weights
from deepfill_jax.convert import nipponjo, torch_writer
from deepfill_jax.models import Variant
from deepfill_jax.tensors import expected_tensors, flatten, subtree, unflatten

GAIN = 2.2  # Gain of random kernels. Less makes features vanish, more amplifies rounding errors.


def random_model(variant: Variant) -> weights.Model:
    """Returns a model with random weights from a fixed seed."""
    rng = np.random.default_rng(0)

    def random_tensor(shape):
        kernel = len(shape) == 4
        scale = GAIN / np.sqrt(np.prod(shape[:-1])) if kernel else 1 / np.sqrt(shape[0])
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    shapes = expected_tensors(variant, discriminator=True)
    tree = unflatten({name: random_tensor(shape) for name, shape in shapes.items()})
    return weights.Model(variant, tree["generator"], tree["discriminator"])


def write_nipponjo(path: Path, model: weights.Model) -> None:
    """Writes a generator in the format that nipponjo's `Generator` loads."""
    named = flatten(weights.networks(model))
    table = nipponjo.make_table(nipponjo.LAYERS, discriminator=False)
    tensors = {origin.name: origin.layout.to_theirs(named[name]) for name, origin in table.items()}
    tensors[nipponjo.CONSTANT] = np.eye(3, dtype=np.float32)[np.newaxis, np.newaxis]
    torch_writer.save(path, {"G": subtree(tensors, "G.")})


def write_both(
    model: weights.Model,
    folder: Path,
    write: Callable[[Path, weights.Model], None],
    python: Path,
    *paths: Path,
    peer: str | None = None,
    suffix: str = ".pth",
) -> tuple[Peer, Peer]:
    """Writes a model in the formats of both sides, and returns the two peers.

    Args:
        model: The model.
        folder: The folder for both files.
        write: Writes the peer's file.
        python: The peer's Python.
        *paths: Additional import folders of the peer.
        peer: Name of the peer's module, by default that of the variant.
        suffix: Suffix of the peer's file.
    """
    name = peer or model.variant.name
    ours, theirs = folder / f"{name}.safetensors", folder / f"{name}{suffix}"
    weights.save(ours, model)
    write(theirs, model)
    return (
        Peer("deepfill_jax", [sys.executable, "-m", "peers.ours"], ours),
        Peer(name, [str(python), "-m", f"peers.{name}"], theirs, paths),
    )
