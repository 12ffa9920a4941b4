"""From another implementation's tensors to our parameter tree, by a table."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from deepfill_jax import weights
from deepfill_jax.models import Variant

# Our layers that see an image, in their first channels, and those that make one. Both references
# work on BGR, as OpenCV reads it; ours works on RGB.
IMAGE_INPUTS = (
    "generator/coarse/encode1",
    "generator/refine/conv_branch/encode1",
    "generator/refine/attention_branch/encode1",
    "discriminator/params/patch1",
)
IMAGE_OUTPUTS = ("generator/coarse/decoder/to_rgb", "generator/refine/decoder/to_rgb")


class Origin(NamedTuple):
    """Where a tensor of ours comes from."""

    name: str  # Theirs.
    transform: Callable[[np.ndarray], np.ndarray] = np.asarray  # From their layout to ours.


Table = dict[str, Origin]  # Our tensor's name -> its origin.


def hwio(kernel: np.ndarray) -> np.ndarray:
    """PyTorch's kernel [out, in, height, width] as ours, [height, width, in, out]."""
    return np.transpose(kernel, (2, 3, 1, 0))


def make_model(
    tensors: Mapping[str, np.ndarray],
    table: Table,
    variant: Variant,
    *,
    source: str,
    about: Mapping[str, Any],
) -> weights.Model:
    """Converts tensors, named as theirs, to a model on RGB images.

    Raises:
        UsageError: A tensor is missing, extra or of another shape; all are listed, by their names
            and with shapes in our layout.
    """
    has_discriminator = any(name.startswith("discriminator/") for name in table)
    expected = weights.expected_tensors(variant, discriminator=has_discriminator)
    ours = {name: _origin(o, tensors) for name, o in table.items() if o.name in tensors}
    found = {name: np.shape(x) for name, x in tensors.items()}
    found |= {table[name].name: np.shape(x) for name, x in ours.items()}
    weights.check_tensors(
        found, {table[name].name: shape for name, shape in expected.items()}, source=source
    )
    tree = weights.unflatten(flip_bgr(ours))
    return weights.Model(variant, tree["generator"], tree.get("discriminator"), about)


def _origin(origin: Origin, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    x = tensors[origin.name]
    try:
        return origin.transform(x)
    except ValueError:  # It has not even the dimensions, and will be listed as misshapen.
        return x


def flip_bgr(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turns a network on BGR images into the same network on RGB images; names are ours."""
    flipped = {name: np.asarray(x, np.float32) for name, x in tensors.items()}
    for layer in IMAGE_INPUTS:
        if f"{layer}/kernel" in flipped:
            flipped[f"{layer}/kernel"] = _flip_inputs(flipped[f"{layer}/kernel"])
    for layer in IMAGE_OUTPUTS:
        for name in (f"{layer}/kernel", f"{layer}/bias"):
            x = flipped[name]  # 3 values, then 3 gates if the layer has them.
            flipped[name] = x.reshape(*x.shape[:-1], -1, 3)[..., ::-1].reshape(x.shape)
    power_vector = "discriminator/spectral/patch1/v"  # In the order of the kernel's inputs.
    if power_vector in flipped:
        kernel = flipped["discriminator/params/patch1/kernel"]
        v = flipped[power_vector].reshape(*kernel.shape[:3], 1)
        flipped[power_vector] = _flip_inputs(v).ravel()
    return flipped


def _flip_inputs(kernel: np.ndarray) -> np.ndarray:
    return np.concatenate([kernel[:, :, 2::-1], kernel[:, :, 3:]], axis=2)
