"""Two training runs in one folder, and processes that do not know of one another."""

import json
import os
import subprocess
import sys

import pytest

from deepfill_jax import distributed
from deepfill_jax.checkpoint import faults
from deepfill_jax.errors import UsageError
from deepfill_jax.train import lock

# Holds the lock as `lock.hold` does, without its imports, until it is killed.
HOLD = """
import filelock, json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
lock = filelock.FileLock(folder / "run.lock")
lock.acquire(timeout=0)
(folder / "run.json").write_text(json.dumps({"host": "other-host", "pid": os.getpid()}))
print("held", flush=True)
time.sleep(60)
"""


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_second_run_is_refused_with_host_and_process_and_changes_nothing(tmp_path, holder):
    before = content(tmp_path)
    message = (
        rf"Another training run uses {tmp_path}: process {holder.pid} on the host other-host\. "
        r"Stop it or wait until it ends, or give another --workdir\.$"
    )
    with pytest.raises(UsageError, match=message), lock.hold(tmp_path):
        pytest.fail("The lock is held twice.")
    assert content(tmp_path) == before


def test_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with lock.hold(tmp_path):
        written = json.loads((tmp_path / lock.HOLDER).read_text())
        assert written["pid"] == os.getpid()
        with pytest.raises(UsageError, match=f"process {os.getpid()} on"), lock.hold(tmp_path):
            pytest.fail("The lock is held twice.")
    assert not (tmp_path / lock.HOLDER).exists()
    with lock.hold(tmp_path):
        pass


def test_workers_do_not_keep_the_lock_of_a_process_that_has_ended(tmp_path):
    with lock.hold(tmp_path):
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with lock.hold(tmp_path):
            assert worker.poll() is None
    finally:
        worker.kill()
        worker.wait()


def test_training_holds_the_lock_until_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.jax, "process_index", lambda: 0)
    with (
        lock.hold_for_all(tmp_path),
        pytest.raises(UsageError, match="Another training run"),
        lock.hold_for_all(tmp_path),
    ):
        pytest.fail("The lock is held twice.")
    with lock.hold_for_all(tmp_path):
        pass


def test_only_process_0_takes_the_lock_and_the_others_learn_of_a_refusal(tmp_path, monkeypatch):
    refusal = faults.VERDICTS.index(UsageError), "Another training run uses it."
    monkeypatch.setattr(lock.jax, "process_index", lambda: 1)
    monkeypatch.setattr(faults, "_exchange", lambda failure: [refusal, (0, "")])
    with (
        pytest.raises(UsageError, match="Another training run uses it"),
        lock.hold_for_all(tmp_path),
    ):
        pytest.fail("Process 1 trains.")
    assert not content(tmp_path)


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match="file/run cannot be written"),
        lock.hold(tmp_path / "file/run"),
    ):
        pytest.fail("There is a lock.")


@pytest.fixture
def alone(monkeypatch):
    for name in (*distributed.TASK_COUNTS, *distributed.OTHER_TASK_COUNTS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda *_, **__: None)


@pytest.mark.parametrize("name", distributed.OTHER_TASK_COUNTS)
def test_process_of_a_job_that_runs_alone_names_the_flags(alone, monkeypatch, caplog, name):
    monkeypatch.setenv(name, "1")
    distributed.join()
    assert not caplog.messages
    monkeypatch.setenv(name, "4")
    distributed.join()
    (message,) = caplog.messages
    assert f"{name}=4, but this process runs alone" in message
    index = distributed.OTHER_TASK_COUNTS[name]
    assert "--coordinator=HOST:PORT" in message and f"--process_id=${index}" in message
    assert "--num_processes=4" in message


def test_joined_process_is_not_warned(alone, monkeypatch, caplog):
    monkeypatch.setenv("WORLD_SIZE", "2")
    distributed.join("127.0.0.1:1234", 2, 0)
    assert not caplog.messages
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.delenv("WORLD_SIZE")
    distributed.join("127.0.0.1:1234", 1, 0)
    assert "OMPI_COMM_WORLD_SIZE=2" in caplog.text
