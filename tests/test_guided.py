"""Sketch-guided networks: the sketch's input channels, and conversion of unguided models."""

import functools

import jax
import numpy as np
import pytest
import test_steps
from references import random_variables
from test_steps import OFFICIAL_RECIPE, random_batch
from test_weights import rewrite

from deepfill_jax import weights
from deepfill_jax.convert import mmagic, report
from deepfill_jax.convert.guided import with_sketch_channels
from deepfill_jax.convert.layout import Conversion
from deepfill_jax.errors import UsageError
from deepfill_jax.models import Discriminator, Generator, make_variant
from deepfill_jax.tensors import PARAMS, expected_tensors, flatten, subtree, unflatten


def make_model(name, *, guided=False, width=2):
    variant = make_variant(name, width=width, discriminator_width=width, guided=guided)
    networks = Generator(variant), Discriminator(variant)
    # With this gain, the inputs of the first layer influence the result.
    generator, discriminator = (random_variables(network, gain=2.3) for network in networks)
    return weights.Model(variant, generator["params"], discriminator)


def make_inputs(seed=0):
    rng = np.random.default_rng(seed)
    image = rng.uniform(-1, 1, (2, 72, 72, 3)).astype(np.float32)
    mask = np.zeros((2, 72, 72, 1), np.float32)
    mask[:, 16:48, 20:40] = 1
    return image * (1 - mask), mask, (rng.uniform(size=mask.shape) < 0.2) * mask


@functools.cache
def compiled(network):
    return jax.jit(network.apply)


def complete(model, *inputs):
    params = {"params": model.generator}
    return np.asarray(compiled(Generator(model.variant))(params, *inputs).completed)


def score(model, *inputs):
    return np.asarray(compiled(Discriminator(model.variant))(model.discriminator, *inputs))


def test_parameter_counts_match_the_release_plus_the_sketch_channels():
    for guided, expected in ((False, (4_052_478, 5_946_816)), (True, (4_053_678, 5_948_416))):
        variant = make_variant("official", guided=guided)
        shapes = expected_tensors(variant, discriminator=True)
        found = tuple(
            sum(np.prod(shape) for shape in subtree(shapes, path).values())
            for path in PARAMS.values()
        )
        assert found == expected


@pytest.mark.parametrize("name", ["official", "mmagic"])
def test_sketch_is_the_fourth_input_channel_of_the_generator(name):
    """A sketch that equals the mask adds the sketch's kernel to the mask's, which is the last."""
    model = make_model(name, guided=True)
    masked, mask, _ = make_inputs()
    tensors = flatten(weights.networks(model))
    for path, x in tensors.items():
        if path.startswith("generator/") and x.ndim == 4 and x.shape[2] == 6:
            assert path.endswith("/encode1/kernel")
            x[:, :, 5] += x[:, :, 3]
            tensors[path] = np.delete(x, 3, axis=2)
    plain = unflatten(tensors)["generator"]
    model = make_model(name, guided=True)  # The tensors above were changed in place.
    unguided = weights.Model(make_model(name).variant, plain)
    expected = complete(unguided, masked, mask)
    np.testing.assert_allclose(complete(model, masked, mask, mask), expected, atol=1e-4)
    assert np.abs(complete(model, masked, mask, 0 * mask) - expected).max() > 1e-2


def test_sketch_is_the_fifth_input_channel_of_the_discriminator():
    model = make_model("official", guided=True)
    masked, mask, _ = make_inputs()
    discriminator = {"params": dict(model.discriminator["params"]), "spectral": {}}
    kernel = np.array(model.discriminator["params"]["patch1"]["kernel"])
    v = model.discriminator["spectral"]["patch1"]["v"].reshape(25, 5).copy()
    v[:, 4] = v[:, 3]
    model.discriminator["spectral"]["patch1"]["v"] = v.ravel()
    kernel[:, :, 3] += kernel[:, :, 4]
    discriminator["params"]["patch1"] = {
        **discriminator["params"]["patch1"],
        "kernel": kernel[:, :, :4],
    }
    u = model.discriminator["spectral"]["patch1"]["u"]
    discriminator["spectral"] = {**model.discriminator["spectral"]}
    discriminator["spectral"]["patch1"] = {"u": u, "v": v[:, :4].ravel()}
    unguided = weights.Model(make_model("official").variant, None, discriminator)
    expected = score(unguided, masked, mask)
    np.testing.assert_allclose(score(model, masked, mask, mask), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(score(model, masked, mask, 0 * mask) - expected).max() > 1e-3


@pytest.mark.parametrize("name", ["official", "mmagic"])
def test_unguided_model_extended_by_sketch_channels_computes_the_same(name):
    model = make_model(name)
    grown = with_sketch_channels(model)
    shapes = expected_tensors(grown.variant, discriminator=True)
    found = flatten(weights.networks(grown))
    assert {path: x.shape for path, x in found.items()} == shapes
    masked, mask, sketch = make_inputs()
    expected = complete(model, masked, mask)
    np.testing.assert_allclose(complete(grown, masked, mask, sketch), expected, atol=1e-4)
    scores = score(model, masked, mask)
    # The order of summation depends on the machine; rounding errors are relative to the summands.
    atol = 1e-6 * np.abs(scores).max()
    np.testing.assert_allclose(score(grown, masked, mask, sketch), scores, rtol=1e-5, atol=atol)


def test_only_guided_networks_take_a_sketch():
    inputs = make_inputs()
    for guided in (False, True):
        model = make_model("official", guided=guided)
        given = inputs[:2] if guided else inputs
        with pytest.raises(ValueError, match="A sketch is required if and only if"):
            complete(model, *given)
        with pytest.raises(ValueError, match="A sketch is required if and only if"):
            score(model, *given)


def test_first_step_matches_the_unguided_one_and_sketch_channels_have_gradients():
    plain = make_model("official", width=4)  # test_steps compiles the same step.
    grown = with_sketch_channels(plain)
    batch = random_batch()
    sketched = batch | {"sketch": batch["mask"] * (np.indices((64, 64)).sum(0) % 5 == 0)[..., None]}

    def step(model, batch):
        networks = {"generator": model.generator, "discriminator": model.discriminator}
        return test_steps.run(model.variant, OFFICIAL_RECIPE, [batch], learns=False, **networks)

    _, [expected] = step(plain, batch)
    state, [found] = step(grown, {n: x.astype(np.uint8) for n, x in sketched.items()})
    for name, value in expected.items():
        if name.startswith(("l1/", "hinge/")):
            np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    # The kernels of the sketch channels are still 0, but their gradients are not.
    first = state.generator.opt_state.gradients["coarse"]["encode1"]["kernel"]
    patch = state.discriminator.opt_state.gradients["patch1"]["kernel"]
    assert np.asarray(first[:, :, 3]).any() and np.asarray(patch[:, :, 4]).any()


def test_model_file_and_its_description_contain_guided(tmp_path):
    path = tmp_path / "model.safetensors"
    model = make_model("mmagic", guided=True)
    weights.save(path, model)
    loaded = weights.load(path)
    assert loaded.variant == model.variant and loaded.variant.guided
    jax.tree.map(np.testing.assert_array_equal, loaded.generator, model.generator)
    assert report.describe(Conversion(loaded, {}, "float32"))["guided"]
    with pytest.raises(UsageError, match="'guided mmagic' has other layers"):
        mmagic.write(tmp_path / "model.pth", model)


def test_model_file_without_the_guided_key_is_unguided(tmp_path):
    path = tmp_path / "model.safetensors"
    weights.save(path, make_model("official"))
    rewrite(path, remove="guided")
    assert not weights.load(path).variant.guided
