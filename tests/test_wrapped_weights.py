"""Tests of the names in state dicts of different trainers; the values do not matter."""

import numpy as np
import pytest
import references

from deepfill_jax.convert import mmagic, nipponjo, wrapped
from deepfill_jax.errors import UsageError

PLAIN = {f"generator.{layer}.weight": i for i, layer in enumerate(mmagic.LAYERS.values())}
DISC = {f"disc.conv{n}.conv.bias": n for n in range(1, 7)}


def chosen(state, choice=None):
    return wrapped.choose_generator(wrapped.unwrap(state), choice, source="a.pth")


def renamed(state, change):
    return {change(name): x for name, x in state.items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"net.model.{name}",
        lambda name: name.replace("generator.", "generator.module."),
        lambda name: name.replace("generator.", "generator._orig_mod."),
    ],
)
@pytest.mark.parametrize("discriminator", [{}, DISC])
def test_wrappers_and_shared_prefixes_are_removed(change, discriminator):
    state = PLAIN | discriminator
    assert chosen(renamed(state, change)) == state
    assert list(chosen(renamed(state, change))) == list(state)


@pytest.mark.parametrize("prefix", ["", "module.", "netG.", "model._orig_mod."])
def test_bare_generators_are_recognised(prefix):
    bare = renamed(PLAIN, lambda name: prefix + name.removeprefix("generator."))
    assert chosen(bare) == PLAIN


def test_ema_generators_are_chosen_by_name():
    averages = {name.replace("generator", "generator_ema.module"): -x for name, x in PLAIN.items()}
    state = PLAIN | DISC | averages | {"generator_ema.steps": 7}
    with pytest.raises(UsageError, match="a.pth holds two generators.*a.pth@generator_ema"):
        chosen(state)
    assert chosen(state, "generator") == PLAIN | DISC
    assert chosen(state, "generator_ema") == {name: -x for name, x in PLAIN.items()} | DISC
    with pytest.raises(
        UsageError, match="a.pth does not hold generator_ema; its generators are: gen"
    ):
        chosen(PLAIN, "generator_ema")


def test_unknown_names_are_kept():
    assert chosen({"features.0.weight": 1, "classifier.bias": 2}) == {
        "features.0.weight": 1,
        "classifier.bias": 2,
    }
    assert wrapped.unwrap({"weight": 1}) == {"weight": 1} and wrapped.unwrap({}) == {}
    with pytest.raises(UsageError, match="same name without their wrappers"):
        wrapped.unwrap({"module.a.b": 1, "a.b": 2})


def test_state_dicts_are_found_under_usual_keys():
    for key in ("state_dict", "model_state_dict", "model"):
        assert wrapped.find_state({key: PLAIN, "epoch": 3}) is PLAIN
    assert wrapped.find_state(PLAIN) is PLAIN and wrapped.find_state(None) is None


@pytest.mark.parametrize("layers", [nipponjo.LAYERS, nipponjo.TF_LAYERS])
def test_bare_nipponjo_generators_are_recognised(layers):
    state = {f"module.{layer}.conv.weight": 1 for layer in layers.values()}
    assert wrapped.is_bare_nipponjo(wrapped.unwrap(state), layers.values())
    assert not wrapped.is_bare_nipponjo(wrapped.unwrap(PLAIN), layers.values())


def test_wrapped_weights_are_converted_like_plain_ones():
    tensors = references.mmagic_tensors(discriminator_gain=references.GENERATOR_GAIN)
    tensors = {name: x for name, x in tensors.items() if name.startswith("generator.")}
    wrapped_names = {f"module.{name}": x for name, x in tensors.items()}
    expected = mmagic.from_state_dict(tensors, source="a.pth")
    result = mmagic.from_state_dict(chosen(wrapped_names), source="a.pth")
    first, second = (x.model.generator["coarse"]["encode1"] for x in (expected, result))
    np.testing.assert_array_equal(first["kernel"], second["kernel"])
