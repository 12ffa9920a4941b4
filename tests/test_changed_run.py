"""Runs that are resumed with another config, with other files, or from an earlier version."""

import itertools
import json
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import photos
import pytest

from deepfill_jax import checkpoint, sharding
from deepfill_jax.checkpoint import content
from deepfill_jax.data import sources, streams
from deepfill_jax.errors import UsageError
from deepfill_jax.train import build, description, layouts, state

ROOT = Path(__file__).parents[1]


def make_config(**changes):
    config = runpy.run_path(str(ROOT / "configs/smoke.py"))["get_config"]("official")
    config.batch_size = config.eval.batch_size = 8  # Tests run on eight virtual devices.
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def averaged(mesh):
    """A state of step 7 with a running average and moments; all its arrays differ."""
    numbers = iter(range(10**6))
    filled = jax.tree.map(
        lambda x: np.full(x.shape, next(numbers), x.dtype),
        build.abstract_state(make_config(ema_decay=0.5), mesh),
    )
    return jax.device_put(filled.replace(step=np.int32(7)), sharding.replicated(mesh))


def earlier_optimizer_state(adam, *, clipped, scheduled):
    """Nests the state of Adam as `optax.chain` did in version 0.1."""
    optimizer = optax.chain(
        *([optax.clip_by_global_norm(1.0)] if clipped else []),
        optax.adam(optax.constant_schedule(1.0) if scheduled else 1.0),
    )
    nested = optimizer.init(adam.mu)
    return jax.tree.map(
        lambda x: adam if isinstance(x, optax.ScaleByAdamState) else x,
        nested,
        is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState),
    )


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("clipped", [False, True])
def test_checkpoints_of_earlier_versions_resume(tmp_path, mesh, averaged, clipped, scheduled):
    nets = {
        name: net.replace(
            opt_state=earlier_optimizer_state(net.opt_state, clipped=clipped, scheduled=scheduled)
        )
        for name, net in {
            "generator": averaged.generator,
            "discriminator": averaged.discriminator,
        }.items()
    }
    save(tmp_path, averaged.replace(**nets))
    saved = content.read_arrays(tmp_path / "checkpoints/7")[0]
    assert f"generator/opt_state/{clipped:d}/0/count" in saved
    assert (f"discriminator/opt_state/{clipped:d}/1/count" in saved) == scheduled
    jax.tree.map(
        np.testing.assert_array_equal, restore(tmp_path, make_config(ema_decay=0.5), mesh), averaged
    )


def save(workdir, saved):
    checkpoints = checkpoint.Checkpoints(workdir, keep_latest=1, keep_best=0)
    checkpoints.save(saved)
    checkpoints.close()


def restore(workdir, config, mesh):
    checkpoints = checkpoint.Checkpoints(workdir, keep_latest=1, keep_best=0)
    abstract = build.abstract_state(config, mesh)
    found = checkpoints.restore_latest(abstract, mesh, adapt=layouts.adapt)
    checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(abstract)
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.clip_norm": 1.0},
        {"optimizer.warmup_steps": 5},
        {"optimizer.decay_steps": 50, "num_steps": 50},
        {"discriminator_optimizer.learning_rate": 1e-3},
        {"optimizer.beta1": 0.9},
    ],
)
def test_optimizer_settings_change_in_an_existing_run(mesh, changes):
    shapes = [content.shapes(build.abstract_state(make_config(**x), mesh)) for x in ({}, changes)]
    assert shapes[0] == shapes[1]


def test_running_average_starts_from_the_parameters_in_an_existing_run(tmp_path, mesh, averaged):
    generator = averaged.generator.replace(average={})
    save(tmp_path, averaged.replace(generator=generator))
    found = restore(tmp_path, make_config(ema_decay=0.5), mesh)
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)  # noqa: E731
    same(found.generator.average, generator.params)
    same(found.generator.replace(average={}), generator)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(found)]
    assert len(set(pointers)) == len(pointers)  # Training steps donate the whole state.


def test_running_average_ends_in_an_existing_run(tmp_path, mesh, averaged):
    save(tmp_path, averaged)
    found = restore(tmp_path, make_config(), mesh)
    assert not found.generator.average
    jax.tree.map(np.testing.assert_array_equal, found.generator.params, averaged.generator.params)


def test_cool_down_of_a_resumed_run_follows_its_step():
    """Not the number of updates, so that it can begin in any run."""
    values = {"learning_rate": 1.0, "warmup_steps": 0, "decay_steps": 100}
    optimizer = state.make_optimizer(beta1=0.9, beta2=0.999, clip_norm=0.0, **values)
    moments = optimizer.init(jnp.zeros(()))
    update, _ = optimizer.update(jnp.ones(()), moments, step=jnp.int32(75))
    rate = float(state.learning_rate_schedule(**values)(75))
    np.testing.assert_allclose(-update, rate, rtol=1e-5)
    np.testing.assert_allclose(rate, (1 + np.cos(0.75 * np.pi)) / 2, rtol=1e-5)


@pytest.fixture
def folder(tmp_path):
    return photos.write(tmp_path / "photos")


def training_batches(config, count):
    source = streams.open_source(config)
    return source, list(itertools.islice(streams.training_batches(config, source)(0), count))


def test_file_that_cannot_be_read_at_a_restart_keeps_its_place(folder, caplog):
    config = make_config(**{"data.source": f"folder:{folder}", "batch_size": 10})
    source, before = training_batches(config, 2)
    content = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(content[:100])
    damaged, after = training_batches(config, 2)
    assert damaged.identity() == source.identity() and damaged.left_out == [f"{folder}/03.png"]
    assert caplog.text.count("03.png") == 1
    for a, b in zip(before, after, strict=True):
        same = [np.array_equal(x, y) for x, y in zip(a["image"], b["image"], strict=True)]
        assert same.count(False) == 1  # Each batch is an epoch.
        np.testing.assert_array_equal(a["mask"], b["mask"])
    (folder / "03.png").write_bytes(content)
    for a, b in zip(before, training_batches(config, 2)[1], strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_validation_omits_files_that_cannot_be_read(folder):
    (folder / "03.png").write_bytes(b"")
    config = make_config(**{"data.val_source": f"folder:{folder}"})
    assert len(streams.open_source(config, validation=True)) == 9


@pytest.mark.parametrize("keep_places", [True, False])
def test_more_than_one_percent_of_missing_files_is_refused(folder, tmp_path, keep_places):
    def open_with(missing):
        names = [f"{folder}/00.png"] * (1100 - missing) + [f"gone{i}.png" for i in range(missing)]
        (tmp_path / "list.txt").write_text("\n".join(names))
        return sources.open_source(f"flist:{tmp_path}/list.txt", keep_places=keep_places)

    assert len(open_with(11)) == (1100 if keep_places else 1089)
    message = r"12 of 1,100 image files cannot be read, such as .*gone0.png; check that all disks"
    with pytest.raises(UsageError, match=message):
        open_with(12)


def describe(config, workdir, saved, images):
    description.check_images(workdir, images)
    description.write(config, workdir, saved, images)


def test_changed_config_and_images_are_printed_and_the_old_ones_kept(
    folder, tmp_path, averaged, caplog, monkeypatch
):
    monkeypatch.setattr(description.parameter_overview, "get_parameter_overview", lambda _: "")
    config = make_config(**{"data.source": f"folder:{folder}"})
    images = {"training": streams.open_source(config)}
    workdir = tmp_path / "run"
    workdir.mkdir()
    describe(config, workdir, averaged, images)
    describe(config, workdir, averaged, images)
    assert not caplog.messages and not list(workdir.glob("*-7.json"))
    old = {path: (workdir / path).read_text() for path in ("config.json", "images.json")}
    assert json.loads(old["images.json"])["training"]["images"] == 10

    photos.write(folder, count=11)
    changes = {"batch_size": 16, "seed": 3, "loss.adversarial": 0.5}
    config.update_from_flattened_dict(changes)
    changed = {"training": streams.open_source(config)}
    caplog.clear()
    describe(config, workdir, averaged, changed)
    (message,) = caplog.messages
    assert message == (
        "The run continues at step 7 with other settings than before: config.seed 0 -> 3, "
        "config.batch_size 8 -> 16, config.loss.adversarial 1.0 -> 0.5, other training images "
        "(10 -> 11). Kept: config-7.json and images-7.json."
    )
    # Another change before the next checkpoint does not replace the config of the saved steps.
    config.seed = 4
    describe(config, workdir, averaged, changed)
    for path, text in old.items():
        assert (workdir / path.replace(".json", "-7.json")).read_text() == text
    assert json.loads((workdir / "config.json").read_text())["seed"] == 4


def test_images_that_have_vanished_since_the_last_start_are_noticed(folder, tmp_path, averaged):
    config = make_config(**{"data.source": f"folder:{folder}"})
    (tmp_path / "config.json").write_text("{")  # Is reported, and does not stop the run.
    describe(config, tmp_path, averaged, {"training": streams.open_source(config)})
    assert (tmp_path / "config-7.json").read_text() == "{"
    (folder / "03.png").unlink()
    images = {"training": streams.open_source(config)}
    message = f"folder:{folder} has 9 images, but 10 at the last start of the run. Check that all"
    with pytest.raises(UsageError, match=re.escape(message)):
        description.check_images(tmp_path, images)
    (tmp_path / "images.json").unlink()
    description.check_images(tmp_path, images)
