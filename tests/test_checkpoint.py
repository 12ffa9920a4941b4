"""Checkpoints: detection of corruption, refusal of checkpoints that do not fit, a full disk."""

import runpy
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfill_jax import checkpoint, sharding
from deepfill_jax.checkpoint import content, faults
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.tensors import expected_tensors, unflatten
from deepfill_jax.train import build

CONFIGS = Path(__file__).parents[1] / "configs"
pytest_plugins = ["training"]
pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(faults, "WAITS", (0.0, 0.0))


@pytest.fixture(scope="module")
def config():
    config = runpy.run_path(str(CONFIGS / "smoke.py"))["get_config"]("official")
    config.ema_decay = 0.5
    return config


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def states(config, mesh):
    """The states of steps 1 and 2."""
    first = build.initial_state(config, mesh).replace(step=jnp.int32(1))
    first = jax.device_put(first, sharding.replicated(mesh))
    return first, jax.tree.map(lambda x: x + 1, first)


@pytest.fixture(scope="module")
def saved(states, tmp_path_factory):
    """The folder of a run that has saved both states."""
    workdir = tmp_path_factory.mktemp("run")
    checkpoints = checkpoint.Checkpoints(workdir, keep_latest=3, keep_best=1)
    for state in states:
        checkpoints.save(state)
    checkpoints.close()
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    """A copy of the run's folder, which tests may damage."""
    return shutil.copytree(saved, tmp_path / "run")


def restore(config, workdir, mesh):
    checkpoints = checkpoint.Checkpoints(workdir, keep_latest=3, keep_best=1)
    state = checkpoints.restore_latest(build.abstract_state(config, mesh), mesh)
    checkpoints.close()
    return state


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda x: x.stat().st_size
    )


def truncate(folder):
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, place=None):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 if place is None else place] ^= 1
    path.write_bytes(damaged)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = {
    "truncated": truncate,
    "a flipped bit": lambda folder: flip(largest_file(folder)),
    "a missing file": lambda folder: largest_file(folder).unlink(),
    "an empty folder": empty,
    "no checksums": lambda folder: (folder / "_CHECKPOINT_METADATA").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_corrupt_checkpoint_is_moved_and_the_previous_one_is_restored(
    config, mesh, states, workdir, caplog, damage
):
    DAMAGES[damage](workdir / "checkpoints/2")
    assert_equal(restore(config, workdir, mesh), states[0])
    message = caplog.messages[-1]
    assert "Checkpoint 2 is corrupt" in message and str(workdir / "corrupt/2") in message
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["1"]
    assert (workdir / "corrupt/2").is_dir()
    # The run resumes and saves that step again.
    checkpoints = checkpoint.Checkpoints(workdir, keep_latest=3, keep_best=1)
    checkpoints.save(states[1])
    checkpoints.close()
    assert_equal(restore(config, workdir, mesh), states[1])


@pytest.mark.slow
def test_flipped_bit_in_any_file_never_restores_a_wrong_state(
    config, mesh, states, saved, tmp_path, monkeypatch
):
    folder = saved / "checkpoints/2"
    files = sorted(
        x.relative_to(folder) for x in folder.rglob("*") if x.is_file() and x.stat().st_size
    )
    passed_over = 0
    for number, name in enumerate(files):
        workdir = shutil.copytree(saved, tmp_path / str(number))
        flip(workdir / "checkpoints/2" / name)
        found = restore(config, workdir, mesh)
        passed_over += int(found.step) == 1
        assert_equal(found, states[int(found.step) - 1])
    assert passed_over


def test_corrupt_array_is_named(states):
    expected = content.checksums(states[0])
    kernel = "generator/params/coarse/encode1/kernel"
    assert kernel in expected
    with pytest.raises(faults.CorruptCheckpointError, match=f"fail their checksum: {kernel}$"):
        content.compare(expected, expected | {kernel: expected[kernel] ^ 1})


def test_error_names_the_corrupt_checkpoints_if_none_is_intact(config, mesh, workdir, monkeypatch):
    for step in (1, 2):
        truncate(workdir / f"checkpoints/{step}")
    with pytest.raises(
        UsageError, match=r"None of the checkpoints of .* is intact.*corrupt/1.*--start_over"
    ):
        restore(config, workdir, mesh)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("model.width", 4, r"generator/.* is \[.*\] where the config asks for \[.*\] and \d+ more"),
        ("ema_decay", 0.0, r"generator/average/.* where the config asks for no such array"),
        ("model.guided", True, r"generator/.* is \[.*\] where the config asks for \[.*\]"),
    ],
)
def test_checkpoint_of_other_networks_is_refused_with_the_difference(
    config, mesh, workdir, key, value, message
):
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=message):
        restore(other, workdir, mesh)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]


def test_corrupt_checkpoint_cannot_be_loaded_as_a_model(config, workdir):
    shapes = expected_tensors(build.variant(config), discriminator=True)
    abstract = unflatten(
        {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    )
    assert checkpoint.load_networks(workdir, abstract)[1] == 2
    truncate(workdir / "checkpoints/2")
    with pytest.raises(UsageError, match=r"Checkpoint 2 of .* is corrupt.*There are \[1, 2\]"):
        checkpoint.load_networks(workdir, abstract)
    assert checkpoint.load_networks(workdir, abstract, step=1)[1] == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_keeps_earlier_checkpoints(config, mesh, states, small_disk):
    checkpoints = checkpoint.Checkpoints(small_disk, keep_latest=1, keep_best=0)
    checkpoints.save(states[0])
    checkpoints._manager.wait_until_finished()
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(RunError, match=r"could not be written .* Those of steps \[1\] are kept"):
        checkpoints.save(states[1])
        checkpoints.close()
    assert_equal(restore(config, small_disk, mesh), states[0])
    filler.unlink()
    checkpoints = checkpoint.Checkpoints(small_disk, keep_latest=1, keep_best=0)
    checkpoints.save(states[1])
    checkpoints.close()
    assert_equal(restore(config, small_disk, mesh), states[1])
