"""StableHLO by `jax.export`: runs where JAX and flatbuffers are, without Flax and this package.

exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
completed = exported.call(image, mask)
json.loads(exported.fun_name)  # Architecture, license and what else is known about the model.

With separate weights the first argument is a dict of the generator's tensors, float32, named as in
the model file: `exported.call(tensors, image, mask)`.

A newer JAX runs what an older one wrote, but not the other way round: export with the oldest JAX
that shall run the file.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deepfill_jax import compiler
from deepfill_jax.errors import UsageError
from deepfill_jax.export import description, require, smallest_side
from deepfill_jax.image import composite
from deepfill_jax.models import Generator, Variant
from deepfill_jax.models.generator import MULTIPLE
from deepfill_jax.tensors import flatten, unflatten
from deepfill_jax.weights import Model

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # Those that JAX compiles for.
TOLERANCE = 1e-5


def save(
    path: str | Path,
    model: Model,
    *,
    platforms: Sequence[str] = ("cpu", "cuda"),
    weights: str = "baked",
) -> None:
    """Writes a model's generator as the function that the package describes.

    Args:
        path: The file to write.
        model: Whose generator it is.
        platforms: Where the file shall run, of `PLATFORMS`; this machine needs none of them.
        weights: "baked" into the file, or "separate": then `tensors_of(model)` is the function's
            first argument.

    Raises:
        UsageError: There is no such platform, or the extra `export` is not installed.
    """
    require("flatbuffers")
    if unknown := set(platforms) - set(PLATFORMS):
        raise UsageError(
            f"No platform is called {', '.join(sorted(unknown))}; there are {', '.join(PLATFORMS)}."
        )
    batch, height, width = _free_shape(model.variant)
    channels = (3, 1, 1) if model.variant.guided else (3, 1)
    inputs = [jax.ShapeDtypeStruct((batch, height, width, c), jnp.float32) for c in channels]
    function, tensors = functools.partial(_complete, Generator(model.variant)), tensors_of(model)
    if weights == "separate":
        inputs = [jax.tree.map(jax.typeof, tensors), *inputs]
    else:
        function = functools.partial(function, tensors)
    exported = jax.export.export(jax.jit(function), platforms=platforms)(*inputs)
    exported = dataclasses.replace(exported, fun_name=description(model))
    Path(path).write_bytes(exported.serialize())


def load(path: str | Path) -> Callable[..., jax.Array]:
    """Reads a file of `save`: a function of image and mask, or of tensors, image and mask.

    It is compiled as `Inpainter` compiles the model, which on a CPU is twice as fast as without.

    Raises:
        UsageError: It is not one, or the extra `export` is not installed.
    """
    require("flatbuffers")
    try:
        exported = jax.export.deserialize(bytearray(Path(path).read_bytes()))
    except Exception as error:  # Flatbuffers' reader raises whatever the bytes lead it to.
        raise UsageError(f"{path} is not a file of jax.export: {error}.") from error
    return jax.jit(exported.call, compiler_options=compiler.options())


def tensors_of(model: Model) -> dict[str, np.ndarray]:
    """The generator's weights, named as in a model file."""
    return flatten({"generator": model.generator})


def _complete(
    network: Generator, tensors: Mapping[str, jax.Array], image, mask, *sketch
) -> jax.Array:
    hole = mask > 0.5
    masked = composite(0.0, image, hole)  # Selected: a NaN in the hole must not get out.
    params = unflatten(tensors)["generator"]
    areas = (x.astype(jnp.float32) for x in (hole, *((x > 0.5) & hole for x in sketch)))
    return network.apply({"params": params}, masked, *areas).completed


def _free_shape(variant: Variant) -> Sequence:
    """Symbols for batch, height and width."""
    # "8*h + 64" says that a side is 72 or more, and so does JAX's message about a smaller one.
    more = smallest_side(variant) - MULTIPLE
    # JAX does not see by itself that a row is no longer than the map; slices of queries ask it to.
    return jax.export.symbolic_shape(
        f"b, {MULTIPLE}*h + {more}, {MULTIPLE}*w + {more}", constraints=["h*w >= w"]
    )
