"""Ranges of config values, and values that follow others."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from deepfill_jax import config
from deepfill_jax.config_table import Number
from deepfill_jax.errors import UsageError
from deepfill_jax.train import build
from deepfill_jax.train.state import learning_rate_schedule

CONFIGS = Path(__file__).parents[1] / "configs"
RANGES = dict(config._leaves(config.KEYS, "config"))


def load(name, *arguments):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](*arguments)


def outside(allowed):
    yield allowed.least - 1
    if allowed.kind is float:
        yield from (float("nan"), float("inf"), allowed.least - 1e-6)
    if allowed.most < np.inf:
        yield allowed.most if allowed.open else allowed.most + 1e-6


@pytest.mark.parametrize("key", RANGES)
def test_values_out_of_range_are_refused_by_key(key):
    allowed = RANGES[key]
    if not isinstance(allowed, Number):
        assert allowed in (str, bool)  # Every number has a range.
        return
    values = load("smoke")
    for value in map(allowed.kind, outside(allowed)):
        values.update_from_flattened_dict({key.removeprefix("config."): value})
        with pytest.raises(UsageError, match=f"^{key}={value!r} must be .*{allowed.least}"):
            config.check(values)
    for value in (allowed.least, min(allowed.most, 10**6) - 1e-6 * allowed.open):
        values.update_from_flattened_dict({key.removeprefix("config."): allowed.kind(value)})
        config.check(values)


@pytest.mark.parametrize(
    "key, value",
    [
        ("keep_latest", 0),
        ("eval.num_examples", -5),
        ("optimizer.learning_rate", -1e-4),
        ("batch_size", 0),
        ("data.sketch_probability", 1.5),
        ("ema_decay", 1.0),
        ("masks.max_area", 2.0),
        ("loss.adversarial", -0.1),
        ("log_every", 0),
        ("checkpoint_every", -1),
        ("discriminator_steps", 0),
    ],
)
def test_ranges_contain_what_makes_sense(key, value):
    assert value not in RANGES[f"config.{key}"]


@pytest.mark.parametrize("name", ["best", "faces", "guided", "demo"])
def test_schedules_and_average_follow_the_number_of_steps(name):
    values = load(name)
    average = values.ema_decay
    assert values.optimizer.decay_steps == values.num_steps
    for steps in (400, 10):
        values.num_steps = steps
        assert values.optimizer.decay_steps == steps
        assert values.discriminator_optimizer.decay_steps == steps
        assert values.optimizer.warmup_steps == steps // (15 if name == "demo" else 20)
        if name != "demo":
            assert steps < 20 or values.ema_decay == 1 - 20 / steps
        config.check(values)
        build.optimizers(values)
    values.optimizer.decay_steps = 0
    values.ema_decay = average
    assert values.num_steps == 10 and values.discriminator_optimizer.decay_steps == 0
    values.num_steps = 400
    assert (values.optimizer.decay_steps, values.ema_decay) == (0, average)


def test_published_averages_are_unchanged():
    assert [load("best", stage).ema_decay for stage in ("64", "128", "256")] == [0.999, 0.998, 0.99]


def test_cool_down_begins_at_its_own_step():
    rate = learning_rate_schedule(
        learning_rate=2.0, warmup_steps=10, decay_start=100, decay_steps=200
    )
    rates = [float(rate(step)) for step in (0, 5, 10, 99, 100, 150, 200, 300)]
    np.testing.assert_allclose(rates, [0, 1, 2, 2, 2, 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("key", ["warmup_steps", "decay_start"])
def test_decay_that_ends_before_it_begins_is_refused(key):
    values = load("smoke")
    values.discriminator_optimizer.decay_steps = 50
    values.discriminator_optimizer[key] = 50
    message = rf"config.discriminator_optimizer.decay_steps=50 must be above .*{key}=50, after"
    with pytest.raises(UsageError, match=message):
        build.optimizers(values)
