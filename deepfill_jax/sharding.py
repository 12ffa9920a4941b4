"""Data parallelism: parameters are replicated on all devices, batches are split along one axis.

This module defines the only mesh and the only partition specs, and is the only place where batches
are transferred from host to devices. With 4 million parameters, splitting anything other than the
batch would not pay.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from deepfill_jax.errors import UsageError


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes a mesh with one axis "data" over `devices`, by default those of all processes."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that puts the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(batch_size: int, mesh: Mesh, *, name: str = "config.batch_size") -> None:
    """Checks that a global batch can be split evenly over the devices.

    Raises:
        UsageError: It cannot; the message suggests the nearest possible size.
    """
    if batch_size < 1 or batch_size % mesh.size:
        nearest = max(mesh.size, batch_size // mesh.size * mesh.size)
        raise UsageError(
            f"{name}={batch_size} must be a multiple of the {mesh.size} devices; try {nearest}."
        )


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Transfers this process's rows of a batch to its devices; returns the global arrays."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }


def local_rows(array: jax.Array) -> np.ndarray:
    """Transfers this process's rows of a batch to the host: the inverse of `shard_batch`."""
    if array.is_fully_addressable:
        return np.asarray(array)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
