"""Seeded weights and golden outputs of the reference implementations."""

import functools
import json
import zlib
from pathlib import Path

import jax
import numpy as np

from deepfill_jax import weights
from deepfill_jax.convert import layout, mmagic, tensorflow1
from deepfill_jax.models import Variant
from deepfill_jax.tensors import expected_tensors, variable_shapes

GOLDEN = Path(__file__).parent / "golden"
GENERATOR_GAIN = 2.2


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.transpose(x, (0, 2, 3, 1))


def rgb(x: np.ndarray) -> np.ndarray:
    """Converts a reference's image, NCHW and BGR, to NHWC and RGB."""
    return nhwc(x)[..., ::-1]


def _draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draws normal values for a tensor, seeded by its name."""
    return np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)


def _shapes(reference: str) -> dict[str, list[int]]:
    return json.loads((GOLDEN / "keys.json").read_text())[reference]


def mmagic_tensors(*, discriminator_gain: float) -> dict[str, np.ndarray]:
    """Returns MMagic's state dict."""
    return _torch_tensors("mmagic", {"generator.": GENERATOR_GAIN, "disc.": discriminator_gain})


def nipponjo_tensors(name: str) -> dict[str, np.ndarray]:
    """Returns the state dicts "G." and "D." of "nipponjo" or "nipponjo_tf"."""
    return _torch_tensors(name, {"G.": GENERATOR_GAIN, "D.": 1.0})


def _torch_tensors(reference: str, gains: dict[str, float]) -> dict[str, np.ndarray]:
    """Returns a state dict with kernels [out, in, height, width]; gains are by name prefix."""
    tensors = {}
    for key, shape in _shapes(reference).items():
        x = _draw(key, shape)
        if key.endswith(("weight_u", "weight_v")):
            x /= np.linalg.norm(x)
        elif key.endswith("bias"):
            x *= 0.1
        else:
            (gain,) = (gain for prefix, gain in gains.items() if key.startswith(prefix))
            x *= gain / np.sqrt(np.prod(shape[1:]))
        tensors[key] = x.astype(np.float32)
    return tensors


def tf_tensors() -> dict[str, np.ndarray]:
    """Returns the TF1 release's variables; kernels are [height, width, in, out]."""
    tensors = {}
    for key, shape in _shapes("tf").items():
        x = _draw(key, shape)
        if key.endswith("/bias"):
            x *= 0.1
        elif key.endswith("/kernel"):
            gain = 1.0 if key.startswith("discriminator/") else GENERATOR_GAIN
            x *= gain / np.sqrt(np.prod(shape[:-1]))
        tensors[key] = x.astype(np.float32)
    return tensors


def narrow_tensors(reference: str, table: layout.Table, variant: Variant) -> dict[str, np.ndarray]:
    """Returns tensors of a narrow network with the reference's names and order."""
    expected = expected_tensors(variant, discriminator=True)
    theirs = {
        origin.name: origin.layout.to_theirs(_draw(origin.name, expected[name]).astype(np.float32))
        for name, origin in table.items()
    }
    return {key: theirs[key] for key in _shapes(reference) if key in theirs}


def random_variables(network, *, seed: int = 0, gain: float = 1.0):
    """Draws variables of a network for 64x64 images with a kernel gain, without running it."""
    rng = np.random.default_rng(seed)

    def draw(x):
        fan_in = np.prod(x.shape[:-1]) if len(x.shape) == 4 else x.size
        scale = gain if len(x.shape) == 4 else 1.0
        return (scale * rng.standard_normal(x.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree.map(draw, variable_shapes(network))


def stepped_adam(tensors: dict[str, np.ndarray], *, steps: int) -> dict:
    """Returns the state dict of a torch.optim.Adam after steps with gradients of `gradient`."""
    import torch

    params = [torch.nn.Parameter(torch.from_numpy(np.array(x))) for x in tensors.values()]
    optimizer = torch.optim.Adam(params, betas=(0.9, 0.999))
    for _ in range(steps):
        for name, param in zip(tensors, params, strict=True):
            param.grad = torch.from_numpy(gradient(name, param.shape))
        optimizer.step()
    return optimizer.state_dict()


def gradient(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a gradient that is the same at each step and different for each name."""
    return _draw(f"gradient of {name}", shape).astype(np.float32)


@functools.cache
def mmagic_model(*, discriminator_gain: float = GENERATOR_GAIN) -> weights.Model:
    tensors = mmagic_tensors(discriminator_gain=discriminator_gain)
    return mmagic.from_state_dict(tensors, source="seeded weights").model


@functools.cache
def official_model() -> weights.Model:
    return tensorflow1.from_variables(tf_tensors(), source="seeded weights").model
