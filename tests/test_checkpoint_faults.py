# ruff: noqa: F401, F811 (fixtures are imported)
"""Checkpoints that cannot be read now stay in place, and a run never restarts silently at 0."""

import json
import shutil

import jax
import orbax.checkpoint as ocp
import pytest
from test_checkpoint import (
    assert_equal,
    config,
    largest_file,
    mesh,
    no_waits,
    restore,
    saved,
    states,
    truncate,
    workdir,
)

from deepfill_jax import checkpoint
from deepfill_jax.checkpoint import content, faults, record
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.tensors import expected_tensors, unflatten
from deepfill_jax.train import build

pytest_plugins = ["training"]
pytestmark = pytest.mark.usefixtures("shared_programs")

TRANSIENT = {
    "stale": OSError(116, "Stale file handle"),
    "permission": PermissionError(13, "Permission denied"),
    "memory": MemoryError(),
    "device memory": jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    "time-out": TimeoutError("timed out"),
    "tensorstore not found": ValueError("NOT_FOUND: Error opening a driver"),
    "tensorstore precondition": ValueError("FAILED_PRECONDITION: Error reading a file"),
    "tensorstore exhausted": ValueError("RESOURCE_EXHAUSTED: Too many open files"),
    "tensorstore unavailable": ValueError("UNAVAILABLE: server"),
    "unknown": RuntimeError("something new"),
}


def steps_in(workdir, name="checkpoints"):
    return sorted(path.name for path in (workdir / name).glob("*"))


def failing(error, times=None):
    """Makes a `restore` that raises `error` the first `times` calls, or always; and its calls."""
    restore, calls = ocp.StandardCheckpointHandler.restore, []

    def fail(self, *args, **kwargs):
        calls.append(error)
        if times is None or len(calls) <= times:
            raise error
        return restore(self, *args, **kwargs)

    return fail, calls


@pytest.mark.parametrize("name", TRANSIENT)
def test_transient_error_ends_the_run_and_moves_no_file(config, mesh, workdir, monkeypatch, name):
    fail, calls = failing(TRANSIENT[name])
    with monkeypatch.context() as patch, pytest.raises(RunError) as caught:
        patch.setattr(ocp.StandardCheckpointHandler, "restore", fail)
        restore(config, workdir, mesh)
    text = str(TRANSIENT[name]) or type(TRANSIENT[name]).__name__
    assert "Checkpoint 2 of" in str(caught.value) and text in str(caught.value)
    assert len(calls) == 3
    assert steps_in(workdir) == ["1", "2"] and not (workdir / "corrupt").exists()
    assert restore(config, workdir, mesh).step == 2


def test_restore_is_retried_after_a_transient_error(config, mesh, states, workdir, monkeypatch):
    fail, calls = failing(TRANSIENT["stale"], times=2)
    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", fail)
    assert_equal(restore(config, workdir, mesh), states[1])
    assert len(calls) == 3


def test_attempts_are_separated_by_the_given_waits(monkeypatch):
    waits = []
    monkeypatch.setattr(faults, "WAITS", (1.0, 4.0))
    monkeypatch.setattr(faults.time, "sleep", waits.append)

    def fail():
        raise TimeoutError("too slow")

    with pytest.raises(faults.UnreadableCheckpointError, match="too slow"):
        faults.attempt(fail, lambda: None)
    assert waits == [1.0, 4.0]


@pytest.mark.parametrize("message", ["DATA_LOSS: checksum", "OUT_OF_RANGE: byte range"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_tensorstore_error_about_content_means_corruption(
    config,
    mesh,
    workdir,
    monkeypatch,
    message,
    wrapped,
):
    error = ValueError(message)
    if wrapped:
        error = Exception("Encountered error while reading array index")
        error.__cause__ = ValueError(message)
    fail, _ = failing(error, times=3)
    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", fail)
    assert restore(config, workdir, mesh).step == 1
    assert steps_in(workdir, "corrupt") == ["2"]


def test_metadata_that_cannot_be_opened_does_not_mean_corruption(
    config, mesh, workdir, monkeypatch
):
    def read(folder, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(content, "_read", read)
    with pytest.raises(RunError, match="metrics of a checkpoint .* cannot be read now: .*Permis"):
        restore(config, workdir, mesh)
    assert steps_in(workdir) == ["1", "2"] and not (workdir / "corrupt").exists()


def test_missing_file_means_corruption_only_if_the_record_lists_it(
    config, mesh, workdir, monkeypatch
):
    largest_file(workdir / "checkpoints/2").unlink()
    saved_record = (workdir / "saved.json").read_text()
    (workdir / "saved.json").unlink()
    with pytest.raises(RunError, match="Checkpoint 2 of .* cannot be read now"):
        restore(config, workdir, mesh)
    assert steps_in(workdir) == ["1", "2"]
    (workdir / "saved.json").write_text(saved_record)
    assert restore(config, workdir, mesh).step == 1
    assert steps_in(workdir, "corrupt") == ["2"]


def test_record_lists_the_files_of_all_checkpoints(saved):
    listed = json.loads((saved / "saved.json").read_text())
    assert listed["newest_step"] == 2 and listed["files"].keys() == {"1", "2"}
    found = {
        path.relative_to(saved / "checkpoints/2").as_posix(): path.stat().st_size
        for path in (saved / "checkpoints/2").rglob("*")
        if path.is_file() and path.name not in record.LATE
    }
    assert {name: size for name, (size, _) in listed["files"]["2"].items()} == found
    for step in (1, 2):
        record.Record(saved / "checkpoints").verify(step)


@pytest.mark.parametrize("own, other", [("unreadable", "whole"), ("whole", "unreadable")])
def test_unreadable_checkpoint_in_one_process_is_moved_by_none(
    config,
    mesh,
    workdir,
    monkeypatch,
    own,
    other,
):
    kinds = {"whole": (0, ""), "unreadable": (3, "Stale file handle")}
    verdicts = [kinds["whole"], kinds["whole"]], [kinds[own], kinds[other]]
    rounds = iter(verdicts)
    monkeypatch.setattr(faults, "_exchange", lambda _: next(rounds))
    where = [own, other].index("unreadable")
    with pytest.raises(RunError, match=f"now in process {where} of 2: Stale file handle"):
        restore(config, workdir, mesh)
    assert steps_in(workdir) == ["1", "2"]


def test_checkpoint_that_is_corrupt_in_one_process_only_raises_an_error(monkeypatch):
    monkeypatch.setattr(faults, "_exchange", lambda _: [(0, ""), (1, "bad bytes")])
    with pytest.raises(RunError, match=r"corrupt in process 1 of 2 \(bad bytes\)"):
        faults.agree(None, "Checkpoint 2")


def test_corrupt_checkpoints_of_one_step_are_all_kept(config, mesh, states, workdir, monkeypatch):
    for _ in range(3):
        truncate(workdir / "checkpoints/2")
        assert restore(config, workdir, mesh).step == 1
        checkpoints = checkpoint.Checkpoints(workdir, keep_latest=3, keep_best=1)
        checkpoints.save(states[1])
        checkpoints.close()
    assert steps_in(workdir, "corrupt") == ["2", "2.1", "2.2"]


@pytest.mark.parametrize("evidence", ["vanished", "corrupt", "damaged"])
def test_run_with_lost_checkpoints_restarts_only_with_start_over(
    config,
    mesh,
    workdir,
    evidence,
):
    if evidence == "vanished":
        shutil.rmtree(workdir / "checkpoints")
    else:
        (workdir / "checkpoints").rename(workdir / evidence)
        (workdir / "saved.json").unlink()
    with pytest.raises(UsageError, match="--start_over"):
        restore(config, workdir, mesh)
    checkpoints = checkpoint.Checkpoints(workdir, keep_latest=3, keep_best=1)
    abstract = build.abstract_state(config, mesh)
    assert checkpoints.restore_latest(abstract, mesh, start_over=True) is None
    checkpoints.close()


def test_start_over_resumes_an_intact_checkpoint(config, mesh, workdir):
    checkpoints = checkpoint.Checkpoints(workdir, keep_latest=3, keep_best=1)
    abstract = build.abstract_state(config, mesh)
    assert checkpoints.restore_latest(abstract, mesh, start_over=True).step == 2
    checkpoints.close()


def test_model_that_cannot_be_read_now_is_not_reported_as_corrupt(config, workdir, monkeypatch):
    shapes = expected_tensors(build.variant(config), discriminator=True)
    abstract = unflatten(
        {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()}
    )

    def fail(*_, **__):
        raise TRANSIENT["stale"]

    monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "restore", fail)
    with pytest.raises(RunError, match="Checkpoint 2 of .* cannot be read now: .*Stale"):
        checkpoint.load_networks(workdir, abstract)


def save(workdir, states, scores, **options):
    checkpoints = checkpoint.Checkpoints(workdir, **{"keep_latest": 1, "keep_best": 1} | options)
    for step, score in scores.items():
        state = states[0].replace(step=states[0].step * step)
        metrics = None if score is None else {"l1_hole": score, "psnr": -score}
        checkpoints.save(state, metrics=metrics)
    checkpoints.close()
    return checkpoints


@pytest.mark.parametrize("metric", ["l1_hole", "psnr"])
def test_best_checkpoint_survives_restarts(states, tmp_path, metric):
    save(tmp_path, states, {2: 5.0, 4: None, 6: 3.0}, best_metric=metric)
    again = save(tmp_path, states, {8: 4.0, 10: 3.5}, best_metric=metric)
    assert steps_in(tmp_path) == ["10", "6"]
    assert again.is_best({metric: 2.9 if metric == "l1_hole" else -2.9})
    assert not again.is_best({metric: 3.0 if metric == "l1_hole" else -3.0})
    assert not again.is_best({metric: float("nan")}) and not again.is_best({})


def test_checkpoints_without_metrics_are_resumed(config, mesh, states, tmp_path):
    save(tmp_path, states, {2: 5.0})
    path = tmp_path / "checkpoints/2/_CHECKPOINT_METADATA"
    metadata = json.loads(path.read_text())
    for key in ("metrics", "metrics_crc32"):
        del metadata["custom_metadata"][key]
    path.write_text(json.dumps(metadata))
    (tmp_path / "saved.json").unlink()
    assert restore(config, tmp_path, mesh).step == 2
    save(tmp_path, states, {4: 9.0})
    assert steps_in(tmp_path) == ["4"]


def test_every_third_checkpoint_is_kept_with_keep_every_3(states, tmp_path):
    save(tmp_path, states, dict.fromkeys(range(1, 8)), keep_every=3, keep_best=0)
    assert steps_in(tmp_path) == ["3", "6", "7"]
