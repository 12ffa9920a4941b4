"""The training step: comparison with MMagic's, and properties of every recipe."""

import dataclasses
import re
from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
from references import golden, nhwc, random_variables, rgb

from deepfill_jax import sharding
from deepfill_jax.convert import mmagic
from deepfill_jax.evaluate.methods import make_inference_step
from deepfill_jax.image import composite
from deepfill_jax.models import MMAGIC, OFFICIAL, Discriminator, Generator, Variant, make_variant
from deepfill_jax.models.generator import Prediction
from deepfill_jax.tensors import flatten
from deepfill_jax.train import losses
from deepfill_jax.train.state import (
    NetState,
    TrainState,
    create_train_state,
    ema_decay_at,
    make_optimizer,
)
from deepfill_jax.train.step import make_train_step

MMAGIC_RECIPE = losses.Recipe(
    discriminator=1.0,
    adversarial=0.1,
    l1_whole=0.0,
    l1_hole=1.0,
    l1_known=1.0,
    concat_real_fake=False,
)
OFFICIAL_RECIPE = losses.Recipe(
    discriminator=0.5,
    adversarial=1.0,
    l1_whole=1.0,
    l1_hole=0.0,
    l1_known=0.0,
    concat_real_fake=True,
)
L1_RECIPE = dataclasses.replace(OFFICIAL_RECIPE, adversarial=0.0)
TINY = {v.name: make_variant(v.name, width=4, discriminator_width=4) for v in (OFFICIAL, MMAGIC)}


def adam(**changes):
    values = {"learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.999}
    rest = {"warmup_steps": 0, "decay_steps": 0, "clip_norm": 0.0}
    return make_optimizer(**(values | rest | changes))


class Watched(NamedTuple):
    """State of an optimizer that keeps the gradients and scales its updates by `rate`."""

    gradients: Any
    rate: jax.Array
    inner: Any


def watched(optimizer):
    def init(params):
        return Watched(jax.tree.map(jnp.zeros_like, params), jnp.ones(()), optimizer.init(params))

    def update(gradients, state, params):
        step, inner = optimizer.update(gradients, state.inner, params)
        step = jax.tree.map(lambda x: state.rate * x, step)
        return step, Watched(gradients, state.rate, inner)

    return optax.GradientTransformation(init, update)


class OneLayer(nn.Module):
    """A generator that compiles in a moment, for tests in which the network does not matter."""

    variant: Variant
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, masked, mask, sketch=None):
        both = nn.Conv(6, (3, 3))(jnp.concatenate([masked, mask], axis=-1))
        coarse, refined = jnp.split(jnp.tanh(both), 2, axis=-1)
        return Prediction(coarse, refined, composite(refined, masked, mask))


OPTIMIZER = watched(adam())
EMA_DECAY = 0.75


@cache
def make_step(variant, recipe, devices, grad_accum_steps, dtype, network):
    """Makes a step and its mesh, once each: compiling one takes longer than most tests."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    step = make_train_step(
        network(variant, dtype),
        Discriminator(variant, dtype),
        OPTIMIZER,
        OPTIMIZER,
        recipe=recipe,
        ema_decay=EMA_DECAY,
        grad_accum_steps=grad_accum_steps,
        mesh=mesh,
    )
    return step, mesh


def set_up(
    variant,
    recipe,
    *,
    generator=None,
    discriminator=None,
    learns=True,
    devices=1,
    grad_accum_steps=1,
    dtype=jnp.float32,
    network=Generator,
):
    """Makes a state with random or given weights, its step, and the mesh.

    Without `learns`, the step computes everything but does not change the parameters.
    """
    generator = generator or random_variables(network(variant))["params"]
    discriminator = discriminator or random_variables(Discriminator(variant))
    step, mesh = make_step(variant, recipe, devices, grad_accum_steps, dtype, network)
    init = lambda params: OPTIMIZER.init(params)._replace(rate=jnp.float32(learns))  # noqa: E731
    state = TrainState(
        step=np.zeros((), np.int32),
        generator=NetState(
            params=generator,
            opt_state=init(generator),
            average=generator,
            spectral={},
        ),
        discriminator=NetState(
            params=discriminator["params"],
            opt_state=init(discriminator["params"]),
            average={},
            spectral=discriminator["spectral"],
        ),
    )
    # The arrays are copied, because the step donates its state.
    state = jax.device_put(jax.tree.map(jnp.array, state), sharding.replicated(mesh))
    return state, step, mesh


def random_batch(size=8, seed=0):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (size, 64, 64, 3), dtype=np.uint8)
    mask = np.zeros((size, 64, 64, 1), np.uint8)
    for i in range(size):
        mask[i, 8 : 16 + 4 * i, 10:40] = 1
    return {"image": image, "mask": mask}


def run(variant, recipe, batches, **options):
    state, step, mesh = set_up(variant, recipe, **options)
    history = []
    for batch in batches:
        state, scalars = step(state, sharding.shard_batch(batch, mesh))
        history.append(jax.device_get(scalars))
    return state, history


MMAGIC_NAMES = {
    "fake_loss": ("hinge/fake", 1.0),
    "real_loss": ("hinge/real", 1.0),
    "stage1_loss_l1_hole": ("l1/coarse/hole", 1.0),
    "stage1_loss_l1_valid": ("l1/coarse/known", 1.0),
    "stage2_loss_l1_hole": ("l1/refined/hole", 1.0),
    "stage2_loss_l1_valid": ("l1/refined/known", 1.0),
    "stage2_loss_g_fake": ("loss/adversarial", 0.1),
}


def compare(scalars, names, values, rtol):
    expected = {name.replace("d_", ""): x for name, x in zip(names, values, strict=True)}
    for theirs, (ours, weight) in MMAGIC_NAMES.items():
        np.testing.assert_allclose(
            weight * scalars[ours], expected[theirs], rtol=rtol, err_msg=ours
        )


def test_losses_and_gradients_match_mmagic():
    arrays = golden("losses_grads_g22_b2_72x72")
    model = references.mmagic_model()
    batch = {"image": (rgb(arrays["image"]) + 1) * 127.5, "mask": nhwc(arrays["mask"])}
    state, (scalars,) = run(
        MMAGIC,
        MMAGIC_RECIPE,
        [batch],
        generator=model.generator,
        discriminator=model.discriminator,
        learns=False,
    )
    compare(scalars, arrays["loss_names"], arrays["loss_values_f64"], rtol=1e-5)
    np.testing.assert_allclose(scalars["loss/generator"], arrays["loss_values_f64"][-1], rtol=1e-5)

    found = flatten(
        {
            "generator": state.generator.opt_state.gradients,
            "discriminator": {"params": state.discriminator.opt_state.gradients},
        }
    )
    norms = dict(zip(arrays["grad_names"], arrays["grad_norm_f64"], strict=True))
    table = mmagic.make_table(discriminator=True)
    ours = {origin.name: found[name] for name, origin in table.items() if name in found}
    assert ours.keys() == norms.keys()
    for name, gradient in ours.items():
        np.testing.assert_allclose(np.linalg.norm(gradient), norms[name], rtol=1e-3, err_msg=name)


def test_three_training_steps_match_mmagic():
    arrays = golden("trainstep_g22_b2_72x72")
    # At these values in the hole, the prediction is so near the ground truth that float32 rounding
    # decides the sign of the L1 gradient, and thereby the fourth digit of later losses. The nudges,
    # in units of 1/255 of the range, move the ground truth to the side to which the reference
    # rounded.
    for step, value, nudge in (
        (0, (1, 1, 31, 33), -0.001),
        (1, (0, 1, 34, 24), 0.05),
        (1, (0, 2, 25, 37), 0.05),
    ):
        arrays[f"gt255/{step}"][value] += nudge
    batches = [
        {"image": rgb(arrays[f"gt255/{i}"]), "mask": nhwc(arrays[f"mask/{i}"])} for i in range(3)
    ]
    model = references.mmagic_model()
    _, history = run(
        MMAGIC,
        MMAGIC_RECIPE,
        batches,
        generator=model.generator,
        discriminator=model.discriminator,
    )
    for scalars, expected in zip(history, arrays["log_values"], strict=True):
        compare(scalars, arrays["log_names"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    "variant, recipe", [("official", OFFICIAL_RECIPE), ("mmagic", MMAGIC_RECIPE)]
)
def test_eight_devices_match_one(variant, recipe):
    batches = [random_batch(seed=i) for i in range(5)]
    histories = [run(TINY[variant], recipe, batches, devices=n)[1] for n in (1, 8)]
    for one, eight in zip(*histories, strict=True):
        for name, value in one.items():
            # Adam's first updates are signs of gradients; rounding decides those near 0, and the
            # norms of later gradients are most sensitive to that.
            rtol = 1e-4 if name.startswith("gradient_norm") else 1e-5
            np.testing.assert_allclose(eight[name], value, rtol=rtol, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    "variant, recipe", [("official", OFFICIAL_RECIPE), ("mmagic", MMAGIC_RECIPE)]
)
def test_gradients_of_each_network_are_all_reduced_once(variant, recipe):
    state, step, mesh = set_up(TINY[variant], recipe, devices=8)
    program = step.lower(state, sharding.shard_batch(random_batch(), mesh)).compile().as_text()
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
    assert re.findall(rf" ({kinds})(?:-start)?\(", program) == ["all-reduce", "all-reduce"]


def test_official_losses_match_the_paper():
    variant, batch = TINY["official"], random_batch()
    _, (scalars,) = run(variant, OFFICIAL_RECIPE, [batch], learns=False)
    image = batch["image"] / np.float32(127.5) - 1
    mask = batch["mask"].astype(np.float32)
    generator, discriminator = Generator(variant), Discriminator(variant)
    params, variables = random_variables(generator), random_variables(discriminator)
    predicted = jax.jit(generator.apply)(params, image * (1 - mask), mask)
    score = jax.jit(partial(discriminator.apply, update_spectral=True, mutable="spectral"))
    both = np.concatenate([predicted.completed, image])
    scores, moved = score(variables, both, np.concatenate([mask, mask]))
    hinges = np.maximum(0, 1 + scores[:8]).mean(), np.maximum(0, 1 - scores[8:]).mean()
    np.testing.assert_allclose(scalars["loss/discriminator"], 0.5 * sum(hinges), rtol=1e-5)
    scores, _ = score({**variables, **moved}, predicted.completed, mask)
    distances = sum(np.abs(x - image).mean() for x in (predicted.coarse, predicted.refined))
    np.testing.assert_allclose(scalars["loss/generator"], distances - scores.mean(), rtol=1e-5)


def test_accumulated_gradients_match_those_of_the_whole_batch():
    # The recipe has no mean over the hole, because that is computed per part; plain means add up.
    batch = random_batch()
    make = partial(run, TINY["official"], L1_RECIPE, [batch], network=OneLayer)
    whole, (expected,) = make()
    parts, (scalars,) = make(grad_accum_steps=2, devices=2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
        whole.generator.opt_state.gradients,
        parts.generator.opt_state.gradients,
    )
    np.testing.assert_allclose(scalars["l1/refined/whole"], expected["l1/refined/whole"], rtol=1e-5)


def test_bfloat16_step_keeps_float32_parameters_and_losses():
    batch = random_batch()
    exact, rough = (
        run(TINY["mmagic"], MMAGIC_RECIPE, [batch], dtype=dtype)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    types = {x.dtype for x in jax.tree.leaves(rough) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert types == {np.dtype(np.float32)}
    for name, value in exact[1][0].items():
        np.testing.assert_allclose(rough[1][0][name], value, rtol=0.05, atol=0.01, err_msg=name)
    for net in ("generator", "discriminator"):
        a, b = (
            np.concatenate(
                [x.ravel() for x in jax.tree.leaves(getattr(state, net).opt_state.gradients)]
            )
            for state, _ in (exact, rough)
        )
        assert not np.array_equal(a, b)
        assert a @ b > 0.99 * np.linalg.norm(a) * np.linalg.norm(b), net


def test_power_iteration_continues_from_part_to_part_of_a_batch():
    options = {"grad_accum_steps": 2, "learns": False, "network": OneLayer}
    state, step, mesh = set_up(TINY["mmagic"], MMAGIC_RECIPE, **options)
    before = jax.device_get(state.discriminator.spectral)
    state, _ = step(state, sharding.shard_batch(random_batch(2), mesh))
    params = jax.device_get(state.discriminator.params["patch3"]["kernel"])
    matrix, u = params.reshape(-1, params.shape[-1]), before["patch3"]["u"]
    for _ in range(6):  # The discriminator runs three times on each of two parts.
        v = matrix @ u
        u = matrix.T @ v
        u /= np.linalg.norm(u)
    np.testing.assert_allclose(state.discriminator.spectral["patch3"]["u"], u, atol=1e-4)


def test_ema_decay_warms_up_to_its_value():
    decays = [float(ema_decay_at(0.9, step)) for step in (0, 8, 1000)]
    np.testing.assert_allclose(decays, [0.1, 0.5, 0.9], rtol=1e-6)


def test_both_networks_learn_and_the_generator_is_averaged():
    state, step, mesh = set_up(TINY["mmagic"], MMAGIC_RECIPE)
    before = jax.device_get(state)
    average = before.generator.params
    for n in (1, 2):
        state, _ = step(state, sharding.shard_batch(random_batch(seed=n), mesh))
        new = jax.device_get(state.generator.params)
        decay = min(EMA_DECAY, n / (9 + n))
        average = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, average, new)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        state.inference_params,
        average,
    )
    for net in ("generator", "discriminator"):
        old, new = (flatten(getattr(s, net).params) for s in (before, state))
        stuck = {name for name in old if np.array_equal(old[name], new[name])}
        # The gradients of the last bias cancel if all real and all fake scores have the same sign.
        assert stuck <= {"patch6/bias"}
    assert int(state.step) == 2
    assert step._cache_size() == 1


def test_discriminator_is_not_trained_without_adversarial_loss():
    state, step, mesh = set_up(TINY["official"], L1_RECIPE, network=OneLayer)
    before = jax.device_get(state)
    state, scalars = step(state, sharding.shard_batch(random_batch(), mesh))
    jax.tree.map(np.testing.assert_array_equal, state.discriminator, before.discriminator)
    assert not any(name.startswith("hinge") for name in scalars)
    assert int(state.step) == 1


def test_gradients_are_clipped_by_their_global_norm():
    optimizer = adam(clip_norm=0.5)
    params = {"a": jnp.ones(4), "b": jnp.ones(2)}
    gradients = {"a": jnp.full(4, 3.0), "b": jnp.full(2, 4.0)}
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    mean = optax.tree_utils.tree_get(state, "mu")
    norm = np.sqrt(4 * 9 + 2 * 16)
    np.testing.assert_allclose(mean["a"], 0.1 * 3.0 * 0.5 / norm, rtol=1e-5)


@pytest.mark.parametrize(
    "schedule, step_sizes",
    [
        ({"warmup_steps": 2}, [0.0, 0.5, 1.0, 1.0]),
        ({"decay_steps": 4}, [1.0, 0.8536, 0.5, 0.1464]),
    ],
)
def test_learning_rate_schedules(schedule, step_sizes):
    # With a constant gradient, every update of Adam has the size of the learning rate.
    optimizer = adam(learning_rate=1.0, **schedule)
    params = jnp.zeros(())
    state = optimizer.init(params)
    for expected in step_sizes:
        update, state = optimizer.update(jnp.ones(()), state, params)
        np.testing.assert_allclose(-update, expected, atol=1e-3)


def test_initial_state_depends_on_the_seed_and_is_replicated_on_all_devices():
    mesh = sharding.make_mesh()
    variant = TINY["mmagic"]
    create = lambda network, seed: create_train_state(  # noqa: E731
        network(variant),
        Discriminator(variant),
        adam(),
        adam(),
        seed=seed,
        averaged=True,
        mesh=mesh,
    )
    first, second = (create(OneLayer, seed).generator.params["Conv_0"]["kernel"] for seed in (1, 2))
    assert (first != second).any()
    kernel = create(Generator, 1).generator.params["coarse"]["encode1"]["kernel"]
    assert 0.015 < np.std(kernel) < 0.025
    assert len(kernel.sharding.device_set) == 8 and kernel.sharding.is_fully_replicated


def test_inference_keeps_known_pixels_exactly():
    variant, batch = TINY["mmagic"], random_batch(2)
    generator, mesh = Generator(variant), sharding.make_mesh(jax.devices()[:1])
    infer = make_inference_step(generator, mesh)
    result = infer(random_variables(generator)["params"], sharding.shard_batch(batch, mesh))
    known = batch["mask"][..., 0] == 0
    np.testing.assert_array_equal(np.asarray(result["completed"])[known], batch["image"][known])


@pytest.mark.parametrize("remat", [False, True])
def test_inference_returns_the_offsets_of_attention(remat):
    variant, batch = TINY["official"], random_batch(2)
    generator, mesh = Generator(variant), sharding.make_mesh(jax.devices()[:1])
    params = random_variables(generator)["params"]
    infer = make_inference_step(generator.clone(remat=remat), mesh, offsets=True)
    offsets = infer(params, sharding.shard_batch(batch, mesh))["offsets"]
    side = batch["image"].shape[1] // 8
    assert offsets.shape == (2, side, side, 2) and offsets.dtype == jnp.int32
    copied = np.asarray(offsets) + np.stack(np.mgrid[:side, :side], axis=-1)
    assert copied.min() >= 0 and copied.max() < side  # Offsets point to positions of the map.
    assert np.asarray(offsets).any()
