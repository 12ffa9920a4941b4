"""The references' seeded weights and golden outputs, in our layout."""

import functools
import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deepfill_jax import weights
from deepfill_jax.convert import mmagic, tensorflow1

GOLDEN = Path(__file__).parent / "golden"
GENERATOR_GAIN = 2.2


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.transpose(x, (0, 2, 3, 1))


def rgb(x: np.ndarray) -> np.ndarray:
    """A reference's image, NCHW and BGR, as ours."""
    return nhwc(x)[..., ::-1]


def _draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A stream of its own for each tensor, seeded by its name."""
    return np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)


def _shapes(reference: str) -> dict[str, list[int]]:
    return json.loads((GOLDEN / "keys.json").read_text())[reference]


def mmagic_tensors(*, discriminator_gain: float) -> dict[str, np.ndarray]:
    """MMagic's state dict; kernels are [out, in, height, width]."""
    tensors = {}
    for key, shape in _shapes("mmagic").items():
        x = _draw(key, shape)
        if key.endswith(("weight_u", "weight_v")):
            x /= np.linalg.norm(x)
        elif key.endswith("bias"):
            x *= 0.1
        else:
            gain = discriminator_gain if key.startswith("disc.") else GENERATOR_GAIN
            x *= gain / np.sqrt(np.prod(shape[1:]))
        tensors[key] = x.astype(np.float32)
    return tensors


def tf_tensors() -> dict[str, np.ndarray]:
    """The TF1 release's variables; kernels are [height, width, in, out]."""
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


def random_variables(network, *, seed: int = 0):
    """Variables of a network for 64x64 pictures, kernels of gain 1, without running it once."""
    arguments = jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    random = np.random.default_rng(seed)

    def draw(x):
        fan_in = np.prod(x.shape[:-1]) if len(x.shape) == 4 else x.size
        return (random.standard_normal(x.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree.map(draw, jax.eval_shape(network.init, *arguments))


@functools.cache
def mmagic_model(*, discriminator_gain: float = GENERATOR_GAIN) -> weights.Model:
    tensors = mmagic_tensors(discriminator_gain=discriminator_gain)
    return mmagic.from_state_dict(tensors, source="seeded weights")


@functools.cache
def official_model() -> weights.Model:
    variables = {k: x for k, x in tf_tensors().items() if k.startswith("inpaint_net/")}
    return tensorflow1.from_variables(variables, source="seeded weights")
