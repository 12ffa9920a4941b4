"""Options of the training step: updates of the discriminator, its first step, skipped steps."""

import logging
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from deepfill_jax import sharding
from deepfill_jax.errors import RunError
from deepfill_jax.train import build, losses, scalar_log

CONFIGS = Path(__file__).parents[1] / "configs"


def make_config(**changes):
    config = runpy.run_path(str(CONFIGS / "smoke.py"))["get_config"]("official")
    config.update_from_flattened_dict(changes)
    return config


def test_discriminator_starts_late_learns_twice_and_broken_steps_change_nothing():
    """One test, because compiling the step takes longer than all its checks."""
    config = make_config(
        **{
            "discriminator_steps": 2,
            "skip_nonfinite": True,
            "loss.adversarial_start_step": 1,
            "optimizer.learning_rate": 1e-2,
            "optimizer.warmup_steps": 4,
            "discriminator_optimizer.warmup_steps": 0,
        }
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    step = build.train_step(config, mesh)
    random = np.random.default_rng(0)
    batch = {"image": random.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)}
    batch["mask"] = np.zeros((4, 32, 32, 1), np.uint8)
    batch["mask"][:, 8:24, 8:24] = 1
    batch = sharding.shard_batch(batch, mesh)

    states, history = [jax.device_get(build.initial_state(config, mesh))], []
    for _ in range(3):
        state = jax.device_put(states[-1], sharding.replicated(mesh))
        state, scalars = jax.device_get(step(state, batch))
        states.append(state)
        history.append(scalars)

    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)  # noqa: E731
    same(states[1].discriminator.params, states[0].discriminator.params)
    counts = [
        [int(s.generator.opt_state.count), int(s.discriminator.opt_state.count)] for s in states
    ]
    assert counts == [[0, 0], [1, 0], [2, 2], [3, 4]]
    assert history[0]["hinge/real"] == history[0]["gradient_norm/discriminator"] == 0
    assert history[1]["hinge/real"] > 0 and history[1]["gradient_norm/discriminator"] > 0
    rates = [[s[f"learning_rate/{name}"] for name in build.OPTIMIZERS] for s in history]
    np.testing.assert_allclose(rates, [[0, 1e-2], [2.5e-3, 1e-2], [5e-3, 1e-2]], rtol=1e-6)
    assert [s["skipped"] for s in history] == [0, 0, 0]
    # Before the start, the total loss has no adversarial term.
    l1 = [sum(s[f"l1/{stage}/whole"] for stage in ("coarse", "refined")) for s in history]
    np.testing.assert_allclose(history[0]["loss/generator"], l1[0], rtol=1e-5)
    expected = l1[1] + config.loss.adversarial * history[1]["loss/adversarial"]
    np.testing.assert_allclose(history[1]["loss/generator"], expected, rtol=1e-4)

    broken = states[-1]
    kernel = np.full_like(broken.generator.params["coarse"]["encode1"]["kernel"], np.nan)
    broken.generator.params["coarse"]["encode1"]["kernel"] = kernel
    after, scalars = jax.device_get(step(jax.device_put(broken, sharding.replicated(mesh)), batch))
    assert scalars["skipped"] == 1 and np.isnan(scalars["loss/generator"])
    assert after.step == broken.step + 1
    same(after.replace(step=broken.step), broken)


def test_adversarial_weight_starts_and_rises():
    weights = dict.fromkeys(("discriminator", "l1_whole", "l1_hole", "l1_known"), 1.0)
    recipe = losses.Recipe(**weights, adversarial=0.5, concat_real_fake=True)
    cases = {
        (0, 0): [0.5] * 4,
        (0, 4): [0.0, 0.25, 0.5, 0.5],
        (2, 0): [0.0, 0.5, 0.5, 0.5],
        (2, 4): [0.0, 0.0, 0.25, 0.5],
    }
    for (start, ramp), expected in cases.items():
        changed = losses.dataclasses.replace(
            recipe, adversarial_start_step=start, adversarial_ramp_steps=ramp
        )
        found = [float(losses.adversarial_weight(changed, step)) for step in (0, 2, 4, 6)]
        np.testing.assert_allclose(found, expected, err_msg=f"{start} {ramp}")


class Writer:
    """A metric writer that keeps the scalars in memory."""

    def __init__(self):
        self.written = {}

    def write_scalars(self, step, scalars):
        self.written[step] = scalars


def write(log, values):
    """Adds a step for each loss and writes the log; a loss that is not finite is skipped."""
    for value in values:
        scalars = {"loss/generator": np.float32(value), "hinge/real": np.float32(1)}
        scalars["learning_rate/generator"] = np.float32(0.1)
        log.add(scalars | {"hinge/fake": np.float32(1), "skipped": not np.isfinite(value)})
    log.write()


def test_skipped_steps_are_counted_and_left_out_of_the_means(caplog):
    writer = Writer()
    log = scalar_log.ScalarLog(make_config(skip_nonfinite=True, batch_size=8), writer, 0)
    with caplog.at_level(logging.WARNING):
        write(log, [1.0, np.nan, 3.0])
        write(log, [np.inf])
    first, second = writer.written[3], writer.written[4]
    assert first["train/loss/generator"] == 2 and first["train/skipped"] == 1
    assert first["train/learning_rate/generator"] == np.float32(0.1)
    assert second["train/skipped"] == 1 and "train/loss/generator" not in second
    assert "Skipped 1 of the last 3 steps" in caplog.messages[0]
    assert "Skipped 1 of the last 1 steps" in caplog.messages[1]
    assert "2 since the start of this process" in caplog.messages[1]


def test_run_ends_if_all_steps_are_skipped(monkeypatch):
    monkeypatch.setattr(scalar_log, "MAX_SKIPPED", 4)
    log = scalar_log.ScalarLog(make_config(skip_nonfinite=True), Writer(), 0)
    write(log, [np.nan, np.nan, np.nan, 1.0, np.nan])
    with pytest.raises(RunError, match="4 steps in a row, up to step 8, were skipped"):
        write(log, [np.nan, np.nan, np.nan])


def test_losses_of_an_idle_discriminator_are_not_logged(caplog):
    writer = Writer()
    config = make_config(**{"loss.adversarial_start_step": 2, "batch_size": 8})
    log = scalar_log.ScalarLog(config, writer, 0)
    write(log, [1.0])
    write(log, [1.0, 1.0])
    write(log, [1.0])
    logged = {step: "train/hinge/real" in scalars for step, scalars in writer.written.items()}
    assert logged == {1: False, 3: False, 4: True}
