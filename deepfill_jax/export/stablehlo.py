"""Export to StableHLO by `jax.export`; running a file needs only JAX and flatbuffers.

from jax import export
exported = export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
completed = exported.call(image, mask)
json.loads(exported.fun_name)  # Architecture, license and other metadata of the model.

With separate weights, the first argument is a dict of the generator's tensors, float32 and named as
in the model file: `exported.call(tensors, image, mask)`.

A newer JAX can run files written by an older one, but not the other way round. Export with the
oldest version of JAX that has to run the file.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from deepfill_jax import compiler
from deepfill_jax.errors import UsageError
from deepfill_jax.export import description, require, smallest_side
from deepfill_jax.image import composite
from deepfill_jax.models import Generator, Variant, predict
from deepfill_jax.models.generator import MULTIPLE
from deepfill_jax.tensors import flatten, unflatten
from deepfill_jax.weights import Model

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # Platforms that JAX can compile for.
TOLERANCE = 1e-5


def save(
    path: str | Path,
    model: Model,
    *,
    platforms: Sequence[str] = ("cpu", "cuda"),
    weights: str = "baked",
) -> None:
    """Writes a model's generator as the function described in `export`.

    Args:
        path: The file to write.
        model: The model whose generator is exported.
        platforms: Platforms on which the file can run, of `PLATFORMS`; this machine does not need
            to have any of them.
        weights: "baked" into the file, or "separate": then `tensors_of(model)` is the function's
            first argument.

    Raises:
        UsageError: A platform is unknown, or the extra `export` is not installed.
    """
    require("flatbuffers")
    if unknown := set(platforms) - set(PLATFORMS):
        raise UsageError(
            f"Unknown platform {', '.join(sorted(unknown))}; choose from {', '.join(PLATFORMS)}."
        )
    batch, height, width = _free_shape(model.variant)
    channels = (3, 1, 1) if model.variant.guided else (3, 1)
    inputs = [jax.ShapeDtypeStruct((batch, height, width, c), jnp.float32) for c in channels]
    function, tensors = functools.partial(_complete, Generator(model.variant)), tensors_of(model)
    if weights == "separate":
        inputs = [jax.tree.map(jax.typeof, tensors), *inputs]
    else:
        function = functools.partial(function, tensors)
    exported = export.export(jax.jit(function), platforms=platforms)(*inputs)
    exported = dataclasses.replace(exported, fun_name=description(model))
    Path(path).write_bytes(exported.serialize())


def load(path: str | Path) -> Callable[..., jax.Array]:
    """Loads a file written by `save`.

    The function is compiled with the options of `Inpainter`, which makes it twice as fast on a CPU.

    Returns:
        Function of image, mask and, if guided, sketch; preceded by tensors if weights are separate.

    Raises:
        UsageError: The file was not written by `save`, or the extra `export` is not installed.
    """
    require("flatbuffers")
    try:
        exported = export.deserialize(bytearray(Path(path).read_bytes()))
    except Exception as error:  # Depending on the bytes, flatbuffers raises any kind of error.
        raise UsageError(f"{path} is not a file written by jax.export: {error}.") from error
    return jax.jit(exported.call, compiler_options=compiler.options())


def tensors_of(model: Model) -> dict[str, np.ndarray]:
    """Returns the generator's weights by their names in a model file."""
    return flatten({"generator": model.generator})


def _complete(
    network: Generator,
    tensors: Mapping[str, jax.Array],
    image: jax.Array,
    mask: jax.Array,
    *sketch: jax.Array,
) -> jax.Array:
    hole = mask > 0.5
    masked = composite(0.0, image, hole)  # A product with the mask would keep NaNs of the hole.
    params = unflatten(tensors)["generator"]
    areas = (x.astype(jnp.float32) for x in (hole, *((x > 0.5) & hole for x in sketch)))
    return predict(network, params, masked, *areas).completed


def _free_shape(variant: Variant) -> Sequence:
    """Returns symbols for batch size, height and width."""
    # Symbols are at least 1, so "8*h + 64" is at least 72. JAX checks this and names the side.
    offset = smallest_side(variant) - MULTIPLE
    # Slicing the queries needs the constraint, because JAX cannot infer it.
    return export.symbolic_shape(
        f"b, {MULTIPLE}*h + {offset}, {MULTIPLE}*w + {offset}", constraints=["h*w >= w"]
    )
