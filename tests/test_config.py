"""Configs: what they mirror, and what is refused."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from deepfill_jax import config
from deepfill_jax.errors import UsageError
from deepfill_jax.train import build, losses

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"


def load(name, *arguments):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](*arguments)


def assert_values(values, expected):
    for key, value in expected.items():
        found = values
        for part in key.split("."):
            found = found[part]
        assert found == value, key


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_is_complete_and_builds(path):
    values = load(path.stem)
    config.check(values)
    losses.Recipe(**values.loss)
    build.optimizers(values)
    image, mask = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    inputs = image, mask, mask if values.model.guided else None
    for network in build.networks(values):
        assert jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]


@pytest.mark.parametrize(
    # MMagic's crop of 384 px takes the whole of the images of CelebA-HQ, which have 256 px.
    "name, steps, crop",
    [("places", 100_000, 384), ("celeba_hq", 20_000, 0)],
)
def test_mmagics_settings(name, steps, crop):
    values = load(name)
    expected = {
        "image_size": 256,
        "batch_size": 16,
        "num_steps": steps,
        "model.architecture": "mmagic",
        "model.width": 24,
        "loss.discriminator": 1.0,
        "loss.adversarial": 0.1,
        "loss.l1_whole": 0.0,
        "loss.l1_hole": 1.0,
        "loss.l1_known": 1.0,
        "optimizer.learning_rate": 1e-4,
        "optimizer.beta1": 0.9,
        "optimizer.beta2": 0.999,
        "ema_decay": 0.0,
        "optimizer.clip_norm": 0.0,
        "optimizer.decay_steps": 0,
        "grad_accum_steps": 1,
        "data.crop_size": crop,
        "data.flip": False,
        "masks.weights.irregular": 1.0,
        "masks.min_area": 0.15,
        "masks.max_area": 0.65,
    }
    assert_values(values, expected)
    assert sum(values.masks.weights.values()) == 1


@pytest.mark.parametrize("name, crop, enlarge", [("places", 256, True), ("celeba_hq", 0, False)])
def test_the_releases_settings(name, crop, enlarge):
    values = load(name, "official")
    expected = {
        "image_size": 256,
        "batch_size": 16,
        "model.architecture": "official",
        "loss.discriminator": 0.5,
        "loss.adversarial": 1.0,
        "loss.l1_whole": 1.0,
        "loss.l1_hole": 0.0,
        "loss.l1_known": 0.0,
        "loss.concat_real_fake": True,
        "optimizer.learning_rate": 1e-4,
        "optimizer.beta1": 0.5,
        "optimizer.beta2": 0.999,
        "data.crop_size": crop,
        "data.enlarge": enlarge,
        "masks.weights.box_and_strokes": 1.0,
    }
    assert_values(values, expected)
    assert sum(values.masks.weights.values()) == 1


def test_all_problems_are_listed_with_the_nearest_key():
    values = load("smoke").to_dict()
    values["batchsize"] = values.pop("batch_size")
    values["loss"]["adversarial"] = "0.1"
    values["model"]["remat"] = 1
    values["num_steps"] = True
    with pytest.raises(UsageError) as caught:
        config.check(values)
    message = str(caught.value)
    assert "config.batchsize does not exist, did you mean config.batch_size" in message
    assert "config.batch_size is missing" in message
    assert "config.loss.adversarial='0.1' is str, must be float" in message
    assert "config.model.remat=1 is int, must be bool" in message
    assert "config.num_steps=True is bool, must be int" in message


def test_unknown_overrides_are_listed_with_the_nearest_key():
    config.check_overrides(["--config=x.py", "--config.seed=1", "--config.masks.weights.box=0.5"])
    with pytest.raises(UsageError) as caught:
        config.check_overrides(["--config.learning_rat=1", "--config.data.xyz=0", "--workdir=w"])
    assert "learning_rat does not exist, did you mean config.optimizer.learning_rate?" in str(
        caught.value
    )
    assert "config.data.xyz does not exist" in str(caught.value)


def test_a_whole_number_will_do_for_a_float():
    values = load("smoke").to_dict()
    values["loss"]["adversarial"] = 1
    config.check(values)


def test_discriminator_follows_the_generator_unless_it_has_values_of_its_own():
    values = load("places")
    values.optimizer.learning_rate = 3e-4
    assert values.discriminator_optimizer.learning_rate == 3e-4
    values.discriminator_optimizer.learning_rate = 6e-4
    values.optimizer.update({"learning_rate": 1e-4, "beta1": 0.7})
    assert values.optimizer.learning_rate == 1e-4
    assert values.discriminator_optimizer.to_dict() == values.optimizer.to_dict() | {
        "learning_rate": 6e-4
    }


def test_config_is_found_by_name_or_file():
    assert config.names() == sorted(path.stem for path in CONFIGS.glob("*.py"))
    assert config.find("places") == str(CONFIGS / "places.py")
    assert config.find("places:official") == f"{CONFIGS / 'places.py'}:official"
    assert config.find(f"{CONFIGS}/best.py:64") == f"{CONFIGS}/best.py:64"
    assert config.load("smoke:official") == load("smoke", "official")
    assert config.load("best") == load("best")


def test_unknown_config_lists_the_names(tmp_path):
    with pytest.raises(
        UsageError, match="no config plces, did you mean places.*best, celeba_hq, .*smoke"
    ):
        config.find("plces:official")
    with pytest.raises(UsageError, match=r"no config .*/own\.py\. The package has best"):
        config.find(f"{tmp_path}/own.py")


def test_loaded_config_is_checked(tmp_path):
    (tmp_path / "own.py").write_text("def get_config():\n    return {'sede': 1}\n")
    with pytest.raises(UsageError, match="config.sede does not exist, did you mean config.seed"):
        config.load(f"{tmp_path}/own.py")


def test_installed_package_brings_the_configs(tmp_path):
    pytest.importorskip("setuptools")
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, timeout=120, capture_output=True)
    code = f"""
from deepfill_jax import config
assert config.__file__.startswith("{tmp_path}")
for name in {[path.stem for path in CONFIGS.glob("*.py")]}:
    assert config.find(name) == f"{tmp_path}/deepfill_jax/configs/{{name}}.py"
    config.load(name)
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120
    )
