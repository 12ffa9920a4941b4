"""The config of a tiny training run, and programs that runs with the same settings share.

Test files load the fixture with `pytest_plugins`.
"""

import functools
import runpy
from pathlib import Path

import jax
import pytest

from deepfill_jax import sharding
from deepfill_jax.train import build, loop

CONFIGS = Path(__file__).parents[1] / "configs"


def make_config(folder, **changes):
    config = runpy.run_path(str(CONFIGS / "smoke.py"))["get_config"]("official")
    config.batch_size = config.eval.batch_size = 8  # Tests run on eight virtual devices.
    config.ema_decay = 0.5
    config.data.source = config.data.val_source = f"folder:{folder}"
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="session")
def shared_programs():
    """Builds each initial state, training step and evaluation step once per process.

    Tracing and compiling them takes most of the time of a run of a few steps.
    """
    create, find_shapes = build.create_train_state, build.abstract_state
    shapes = {}

    @functools.cache
    def create_once(*parts, **options):
        return jax.device_get(create(*parts, **options))

    def create_train_state(*parts, mesh, **options):
        # Training donates its state, so each run gets a copy.
        return jax.device_put(create_once(*parts, mesh=mesh, **options), sharding.replicated(mesh))

    def abstract_state(config, mesh):
        names = "model", "optimizer", "discriminator_optimizer", "ema_decay"
        key = str([config[name] for name in names]), mesh
        if key not in shapes:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(build, "create_train_state", create)
                shapes[key] = find_shapes(config, mesh)
        return shapes[key]

    make_step = build.make_train_step

    @functools.cache
    def make_step_once(*parts, schedules, **options):
        return make_step(*parts, schedules=dict(schedules), **options)

    def make_train_step(*parts, schedules, **options):
        return make_step_once(*parts, schedules=tuple(schedules.items()), **options)

    with pytest.MonkeyPatch.context() as patch:
        schedule = functools.cache(build.learning_rate_schedule)
        patch.setattr(build, "learning_rate_schedule", schedule)
        patch.setattr(build, "make_optimizer", functools.cache(build.make_optimizer))
        patch.setattr(build, "make_train_step", make_train_step)
        patch.setattr(build, "create_train_state", create_train_state)
        patch.setattr(build, "abstract_state", abstract_state)
        patch.setattr(loop, "make_evaluation_step", functools.cache(loop.make_evaluation_step))
        yield
