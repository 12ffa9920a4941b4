"""Starting from the weights of a model that fit other networks."""

import dataclasses
import logging

import jax
import numpy as np
import pytest
from references import random_variables
from test_step_options import make_config

from deepfill_jax import sharding, weights
from deepfill_jax.errors import UsageError
from deepfill_jax.train import build, freezing

MESH = sharding.make_mesh(jax.devices()[:1])


def make_start(path, *, discriminator=True, **changes):
    """Writes a model of the smoke config with changes; returns a config that starts from it."""
    config = make_config(**changes)
    nets = [random_variables(network) for network in build.networks(config)]
    zeros = jax.tree.map(np.zeros_like, nets[0]["params"])
    moments = {"generator": {"count": np.int32(3), "mu": zeros, "nu": zeros}}
    variant = build.variant(config)
    model = weights.Model(
        variant, nets[0]["params"], nets[1] if discriminator else None, moments=moments
    )
    weights.save(path, model)
    return make_config(init_from=f"{path}", init_partial=True), model


def read(network, tree):
    return {name: np.asarray(x) for name, x in freezing.paths(network, tree)}


def test_weights_that_fit_are_taken_and_the_others_listed(tmp_path, caplog, monkeypatch):
    config, model = make_start(tmp_path / "m.safetensors")
    params = {name: dict(patch) for name, patch in model.discriminator["params"].items()}
    params["patch1"]["kernel"] = np.zeros((3, 3, 4, 2), np.float32)
    del params["patch2"]["bias"]
    params["patch9"] = {"bias": np.zeros(3, np.float32)}
    changed = dataclasses.replace(model, discriminator=model.discriminator | {"params": params})
    monkeypatch.setattr(build.warm_start, "read", lambda *_, **__: changed)
    caplog.set_level(logging.INFO, "deepfill_jax")
    state = build.initial_state(config, MESH)
    jax.tree.map(np.testing.assert_array_equal, state.generator.params, model.generator)
    assert state.generator.opt_state.count == 3
    now, given, random = (
        read("discriminator", x)
        for x in (
            state.discriminator.params,
            params,
            build.initial_state(make_config(), MESH).discriminator.params,
        )
    )
    left = {f"discriminator/{name}" for name in ("patch1/kernel", "patch2/bias")}
    for name in now:
        np.testing.assert_array_equal(now[name], (random if name in left else given)[name])
    assert caplog.messages[:-1] == [
        "generator: 84 of 84 arrays are taken: generator.",
        "discriminator: 10 of 12 arrays are taken: discriminator/patch1/bias, "
        "discriminator/patch2/kernel, discriminator/patch3, discriminator/patch4, "
        "discriminator/patch5, discriminator/patch6.",
        "discriminator: 2 arrays stay at their initial values: discriminator/patch1/kernel "
        "(3x3x4x2 in the model, 5x5x4x2 in the config), discriminator/patch2/bias (not in the "
        "model).",
        "discriminator: 1 arrays of the model are not used: discriminator/patch9/bias.",
    ]
    same = jax.tree.map(lambda x, y: x.shape == y.shape, state, build.abstract_state(config, MESH))
    assert all(jax.tree.leaves(same))


def test_other_widths_need_the_request_and_drop_moments(tmp_path, caplog):
    changes = {"model.width": 4}
    config, _ = make_start(tmp_path / "m.safetensors", discriminator=False, **changes)
    caplog.set_level(logging.INFO, "deepfill_jax")
    state = build.initial_state(config, MESH)
    assert state.generator.opt_state.count == 0
    text = "\n".join(caplog.messages)
    assert "Adam's moments of the generator start at 0" in text
    assert "has no discriminator: all of it stays at its initial values" in text
    config.init_partial = False
    with pytest.raises(UsageError, match="holds width 4 .*config.init_partial=True takes"):
        build.initial_state(config, MESH)


def test_model_of_which_nothing_fits_is_refused(tmp_path, monkeypatch):
    config, model = make_start(tmp_path / "m.safetensors")
    other = weights.Model(model.variant, {"other": np.zeros(3, np.float32)})
    monkeypatch.setattr(build.warm_start, "read", lambda *_, **__: other)
    with pytest.raises(UsageError, match="no parameter of its generator has the path and shape"):
        build.initial_state(config, MESH)
