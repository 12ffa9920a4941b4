"""Frozen parameters: patterns, and a training step that leaves them bit for bit."""

import jax
import numpy as np
import pytest
from test_step_options import make_config

from deepfill_jax import sharding
from deepfill_jax.errors import UsageError
from deepfill_jax.train import build, freezing

MOMENT = np.float32(2**-10)
NAMES = {
    "generator/coarse/encode1/kernel",
    "generator/coarse/encode1/bias",
    "generator/refine/out/kernel",
    "discriminator/conv1/kernel",
}


@pytest.mark.parametrize(
    "patterns, expected",
    [
        ("", ()),
        ("generator/coarse", ("encode1/kernel", "encode1/bias")),
        ("*/bias, discriminator/*", ("encode1/bias", "conv1/kernel")),
        ("generator/*/kernel,", ("encode1/kernel", "out/kernel")),
    ],
)
def test_patterns_match_paths_and_folders(patterns, expected):
    frozen = freezing.match(patterns, NAMES)
    assert sorted(frozen) == sorted(x for x in NAMES if x.endswith(expected or ("nothing",)))


def test_pattern_that_matches_nothing_is_refused_with_the_nearest_names():
    with pytest.raises(UsageError) as error:
        freezing.match("*/bias, generator/coarse/encode2", NAMES)
    assert str(error.value).startswith(
        "config.freeze: generator/coarse/encode2 matches no parameter, did you mean "
        "generator/coarse/encode1"
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    with pytest.raises(UsageError, match="generator/corse matches .*did you mean generator/coarse"):
        build.train_step(make_config(freeze="generator/corse"), mesh)


def test_frozen_parameters_and_their_average_stay_bit_for_bit():
    config = make_config(
        **{
            "freeze": "generator/coarse, discriminator/*/bias",
            "ema_decay": 0.9,
            "optimizer.clip_norm": 1e-3,
            "optimizer.learning_rate": 1e-2,
        }
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = jax.device_get(build.initial_state(config, mesh))
    # Adam still moves along gradients of earlier steps.
    for net in (state.generator, state.discriminator):
        mu = jax.tree.map(lambda x: np.full_like(x, MOMENT), net.params)
        nu = jax.tree.map(np.ones_like, net.params)
        object.__setattr__(net, "opt_state", net.opt_state._replace(mu=mu, nu=nu))
    for params in (state.generator.params, state.generator.average):
        zero = np.full_like(params["coarse"]["encode1"]["bias"], -0.0)
        params["coarse"]["encode1"]["bias"] = zero  # Adding 0 would change its sign.
    batch = {"image": np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)}
    batch["mask"] = np.zeros((4, 32, 32, 1), np.uint8)
    batch["mask"][:, 8:24, 8:24] = 1
    step = build.train_step(config, mesh)
    before = jax.device_put(state, sharding.replicated(mesh))
    after, scalars = jax.device_get(step(before, sharding.shard_batch(batch, mesh)))
    frozen = build.frozen_parameters(config, mesh)
    assert frozen
    for network in freezing.NETWORKS:
        for kind in ("params", "average"):
            old, new = (
                dict(freezing.paths(network, getattr(getattr(x, network), kind)))
                for x in (state, after)
            )
            unchanged = {name for name in old if old[name].tobytes() == new[name].tobytes()}
            assert unchanged == frozen & old.keys(), (network, kind)
    # Clipping takes the norm of the trained parameters alone.
    beta1, clipped = config.optimizer.beta1, {}
    for name, mu in freezing.paths("generator", after.generator.opt_state.mu):
        clipped[name] = (mu - beta1 * MOMENT) / (1 - beta1)
    assert all(np.abs(clipped[name]).max() < 1e-9 for name in frozen & clipped.keys())
    norm = np.sqrt(sum(np.square(x).sum() for x in clipped.values()))
    np.testing.assert_allclose(norm, config.optimizer.clip_norm, rtol=1e-3)
    assert scalars["gradient_norm/generator"] > config.optimizer.clip_norm
