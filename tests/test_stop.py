"""A stop at any time ends the run within seconds, with exit code 75 and without losing a step."""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import photos
import pytest

from deepfill_jax import checkpoint, sharding
from deepfill_jax.errors import PreemptedError
from deepfill_jax.train import build, loop, stop, stop_together

ROOT = Path(__file__).parents[1]
# A compilation holds the main thread in the same way: no Python handler runs meanwhile.
BLOCK = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
STUCK = f"""
import hashlib, pathlib, sys
from deepfill_jax.train.stop import StopSignal

def save():
    pathlib.Path(sys.argv[2]).write_text("saved")
    return "Stopped and saved."

with StopSignal() as stop, stop.leaving(float(sys.argv[1]), save):
    print("ready", flush=True)
    {BLOCK}
"""
# Runs `main`; the function that the first argument names never returns.
MAIN = f"""
import hashlib, sys
from deepfill_jax import main
from deepfill_jax.data import files
from deepfill_jax.train import build, loop

def block(*_, **__):
    print("blocked", flush=True)
    {BLOCK}

if sys.argv[1] == "files":
    files._checked = block
elif sys.argv[1] == "compilation":
    build.make_train_step = lambda *_, **__: block
elif sys.argv[1] == "validation":
    loop.make_evaluation_step = lambda *_, **__: block
main.run_command(lambda: main.main(["main", *sys.argv[2:]]))
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_by_sigterm(process, seconds):
    """Sends SIGTERM, and returns the output if the exit code is 75 within some seconds."""
    sent = time.monotonic()
    process.terminate()
    try:
        output = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, output
    assert time.monotonic() - sent < seconds
    return output


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_process_that_is_stuck_in_a_compilation_saves_and_exits(tmp_path, seconds):
    process = start(STUCK, seconds, tmp_path / "file")
    assert process.stdout.readline() == "ready\n"
    assert end_by_sigterm(process, seconds + 5)[1] == "Stopped and saved.\n"
    assert (tmp_path / "file").read_text() == "saved"


def test_body_that_ends_in_time_is_not_ended(monkeypatch):
    ended = []
    monkeypatch.setattr(stop, "_exit", ended.append)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with stop.StopSignal() as requests:
        assert not requests.requested()
        with requests.leaving(60.0, lambda: ""):
            os.kill(os.getpid(), signal.SIGTERM)
            assert requests.requested() and requests.requested()
        time.sleep(3 * stop.POLL_SECONDS)
    assert not ended and signal.set_wakeup_fd(-1) == -1
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_ctrl_c_at_the_start_is_not_delayed():
    before = signal.getsignal(signal.SIGINT)  # Background jobs ignore it.
    with (
        pytest.raises(KeyboardInterrupt),
        stop.StopSignal() as requests,
        requests.leaving(0.0, lambda: ""),
    ):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_processes_ask_equally_often_and_remember_the_answer(monkeypatch):
    asked = []

    def reached(number):
        asked.append(number)
        return number == 3  # JAX answers True once.

    monkeypatch.setattr(stop.jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(stop.multihost_utils, "reached_preemption_sync_point", reached)
    with stop.StopSignal() as requests:
        assert [requests.requested() for _ in range(5)] == [False, False, True, True, True]
    assert asked == [1, 2, 3]


class Store:
    """The key-value store of a run whose other processes do as this one."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value):
        if key in self.values:
            raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
        self.values[key] = value

    def key_value_try_get(self, key):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("NOT_FOUND")
        return self.values[key]

    def blocking_key_value_get(self, key, timeout_in_ms):
        return self.values[key]

    def wait_at_barrier(self, name, timeout_in_ms):
        pass


@pytest.fixture
def store(monkeypatch):
    store = Store()
    monkeypatch.setattr(stop_together.multihost, "get_jax_distributed_client", lambda: store)
    monkeypatch.setattr(stop_together, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stop_together, "LEAVE_SECONDS", 0.0)
    return store


def test_processes_end_together_before_the_first_step(store):
    ended = []
    with stop_together.leaving(lambda: ended.append(1)):
        store.key_value_set(stop_together.DECISION_KEY, stop_together.STOP)  # By another process.
        store.key_value_set(stop_together.SIGTERM_KEY, "now")
    assert ended  # The context waited for it.


def test_process_that_has_decided_to_run_is_not_ended(store):
    ended = []
    with stop_together.leaving(lambda: ended.append(1)):
        store.key_value_set(stop_together.DECISION_KEY, stop_together.RUN)  # By another process.
        store.key_value_set(stop_together.SIGTERM_KEY, "now")
        time.sleep(0.2)
    assert not ended


def test_error_by_the_end_of_another_process_is_not_reported(store):
    ended = threading.Event()
    with pytest.raises(RuntimeError), stop_together.leaving(ended.set):
        store.key_value_set(stop_together.SIGTERM_KEY, "now")
        time.sleep(0.2)
        raise RuntimeError("Connection closed by peer")
    assert ended.is_set()  # This thread continues only because `end` returns here.


def make_config(folder, **changes):
    config = runpy.run_path(str(ROOT / "configs/smoke.py"))["get_config"]("official")
    config.batch_size = config.eval.batch_size = 8  # Tests run on eight virtual devices.
    config.data.source = config.data.val_source = f"folder:{folder}"
    config.eval.num_examples = 30
    config.checkpoint_every = 0
    config.update_from_flattened_dict(changes)
    return config


def final_state(config, workdir):
    checkpoints = checkpoint.Checkpoints(workdir, keep_latest=3, keep_best=1)
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = checkpoints.restore_latest(build.abstract_state(config, mesh), mesh)
    checkpoints.close()
    return state


def make_counting_step(*_, **__):
    """Makes a training step that only counts, so that nothing is compiled."""
    return lambda state, _: (state.replace(step=state.step + 1), {"loss/generator": np.float32(0)})


def test_validation_is_stopped_between_batches_and_its_step_is_saved(tmp_path, monkeypatch):
    config = make_config(photos.write(tmp_path / "photos", count=30))
    batches = []

    def interrupted(params, batch):
        batches.append(batch)
        if len(batches) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        image = batch["image"].astype(np.float32)
        offsets = np.zeros((8, 4, 4, 2), np.int32)
        return {"completed": image, "masked": image, "coarse": image, "offsets": offsets}

    monkeypatch.setattr(loop.build, "make_train_step", make_counting_step)
    monkeypatch.setattr(loop, "make_evaluation_step", lambda *_, **__: interrupted)
    with pytest.raises(PreemptedError, match="on request after step 2; it is saved"):
        loop.train(config, tmp_path / "run")
    assert len(batches) == 1  # Of four.
    assert int(final_state(config, tmp_path / "run").step) == 2
    assert not (tmp_path / "run/run.json").exists()
    loop.train(config, tmp_path / "run")
    assert len(batches) == 5 and int(final_state(config, tmp_path / "run").step) == 4


@pytest.mark.slow
@pytest.mark.parametrize("place", ["files", "compilation", "validation"])
def test_training_stops_wherever_it_is(tmp_path, place):
    config = make_config(photos.write(tmp_path / "photos"))
    changes = {"data.source": config.data.source, "data.val_source": config.data.val_source}
    arguments = [f"--config.{key}={value}" for key, value in changes.items()]
    run = ["--config=smoke:official", f"--workdir={tmp_path / 'run'}", *arguments]
    process = start(MAIN, place, *run, "--config.batch_size=8", "--config.eval.batch_size=8")
    while "blocked" not in process.stdout.readline():
        assert process.poll() is None, process.communicate()
    errors = end_by_sigterm(process, stop.VALIDATION_SECONDS + 5)[1]
    if place == "validation":
        assert "Stopped on request after step 2; it is saved" in errors
        assert int(final_state(config, tmp_path / "run").step) == 2
    else:
        assert "Stopped on request before the first step: nothing was lost." in errors


@pytest.mark.slow
def test_sigterm_during_the_imports_returns_75():
    code = "from deepfill_jax.train.stop import exit_at_sigterm\nimport time\n"
    code += "with exit_at_sigterm():\n    print('started', flush=True)\n    time.sleep(60)"
    process = start(code)
    assert process.stdout.readline() == "started\n"
    assert end_by_sigterm(process, 5)[1] == "Stopped on request.\n"
