"""Names of before version 0.2."""

import json

import pytest

from deepfill_jax import config, renamed, trained, weights
from deepfill_jax.convert.__main__ import main as convert
from deepfill_jax.errors import UsageError


@pytest.mark.parametrize(
    "old, new",
    [
        ("average_decay", "ema_decay"),
        ("masks.kinds.box", "masks.weights.box"),
        ("masks.kinds.box_or_strokes", "masks.weights.box_and_strokes"),
        ("loss.joint_pass", "loss.concat_real_fake"),
        ("seed", "seed"),
    ],
)
def test_old_config_key_has_a_new_name(old, new):
    assert renamed.new_key(old) == new


def test_every_new_name_is_a_key_of_the_config():
    known = {name.removeprefix("config.") for name, _ in config._leaves(config.KEYS, "config")}
    for new in renamed.CONFIG_KEYS.values():
        assert any(name == new or name.startswith(f"{new}.") for name in known), new


def test_config_of_an_old_run_is_read_by_the_names_of_today():
    old = {"average_decay": 0.9, "masks": {"kinds": {"box_or_strokes": 1.0}, "folder": ""}}
    assert renamed.with_new_keys(json.loads(json.dumps(old))) == {
        "ema_decay": 0.9,
        "masks": {"weights": {"box_and_strokes": 1.0}, "folder": ""},
    }


def test_metadata_of_an_old_model_file_is_read_by_the_names_of_today():
    old = {"licence": "CC0", "step": 3, "recipe": {"joint_pass": True, "l1_valid": 0.2, "l1": 1.0}}
    assert renamed.with_new_entries(old) == {
        "license": "CC0",
        "step": 3,
        "recipe": {"concat_real_fake": True, "l1_known": 0.2, "l1": 1.0},
    }
    assert renamed.with_new_entries({"recipe": {}}) == {"recipe": {}}


def test_bundled_models_have_the_recipe_keys_of_today():
    for name in trained.names():
        recipe = weights.load(name).metadata["recipe"]
        assert recipe.keys() <= config.KEYS["loss"].keys(), name


def test_override_by_an_old_key_names_the_new_one():
    with pytest.raises(UsageError, match=r"did you mean config\.masks\.weights\.box_and_strokes\?"):
        config.check_overrides(["--config.masks.kinds.box_or_strokes=1"])


def test_config_file_with_an_old_key_names_the_new_one():
    with pytest.raises(UsageError, match=r"config\.average_decay .*did you mean config\.ema_decay"):
        config.check({"average_decay": 0.5})


def test_old_flag_names_the_new_one(capsys):
    with pytest.raises(SystemExit) as ended:
        convert(["a", "--output", "b.safetensors", "--moments"])
    assert ended.value.code == 2
    assert "--moments was renamed to --optimizer-state" in capsys.readouterr().err
