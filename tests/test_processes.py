"""Multi-process runs of `main`: several processes match one, and killed runs lose nothing.

    PHOTOS=FOLDER KILLS=20 python -m pytest -n 0 -m slow -s tests/test_processes.py

This command compares losses on photographs with a relative tolerance of 1e-5. Without PHOTOS, the
images are synthetic and the tolerance is 5e-5, because the adversarial term of the generator's loss
is a mean near 0 of scores that cancel.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import photos
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from deepfill_jax.convert import run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
STEPS = 10
KILLS = int(os.environ.get("KILLS", "20"))
READS = 20
PHOTOS = os.environ.get("PHOTOS")
same = partial(np.testing.assert_allclose, rtol=1e-5 if PHOTOS else 5e-5)

# Runs `main` and records the data that goes to the devices: checksums of each row of each batch.
RECORDER = """
import json, os, sys, zlib
from deepfill_jax import main, sharding

def recorded(batch, mesh):
    rows = [[zlib.crc32(x.tobytes()) for x in row] for row in zip(batch["image"], batch["mask"])]
    with open(os.environ["RECORD"], "a") as record:
        print(json.dumps(rows), file=record)
    return shard_batch(batch, mesh)

shard_batch, sharding.shard_batch = sharding.shard_batch, recorded
main.run_command(lambda: main.main(sys.argv))
"""
# Run before RECORDER, it makes all checkpoints unreadable in process 1.
STALE = """
import jax, orbax.checkpoint
from deepfill_jax.checkpoint import faults

def stale(self, *args, **kwargs):
    if jax.process_index() == 1:
        raise OSError(116, "Stale file handle")
    return restore(self, *args, **kwargs)

handler = orbax.checkpoint.StandardCheckpointHandler
restore, handler.restore = handler.restore, stale
faults.WAITS = (0.1, 0.1)
"""

# Run before RECORDER, it keeps the processes {0} in a compilation of the training step.
COMPILING = """
import hashlib, jax
from deepfill_jax.train import build

make_train_step = build.make_train_step

def make_endless_step(*args, **kwargs):
    step = make_train_step(*args, **kwargs)

    def compile(*state_and_batch):
        print("compiling", flush=True)
        if jax.process_index() in {0}:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        return step(*state_and_batch)

    return compile

build.make_train_step = make_endless_step
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return PHOTOS or photos.write(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def end_all_processes():
    yield
    for process in Run.started:
        process.kill()
    Run.started.clear()


class Run:
    """A run of `main` in one or more processes, each with one or more devices."""

    started = []

    def __init__(
        self, folder, workdir, *, processes=1, devices=1, changed=None, prelude="", **changes
    ):
        """Starts the processes.

        `changes` are config values, `changed` more of them for the last process only. `prelude` is
        code to run before `main`.
        """
        self.workdir = workdir
        source = f"folder:{folder}"
        changes = {
            "data.source": source,
            "data.val_source": source,
            "batch_size": 8,
            "num_steps": STEPS,
            "eval.batch_size": 8,
            "eval.every": 0,
            "checkpoint_every": 5,
        } | changes
        # XLA compiles as for users, because unoptimized sums have rounding errors of 1e-5.
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        environment["JAX_NUM_CPU_DEVICES"] = str(devices)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        workdir.mkdir(exist_ok=True)
        self.processes, self.records = [], []
        for index in range(processes):
            command = [sys.executable, "-c", prelude + RECORDER]
            command += ["--config=configs/smoke.py:official", f"--workdir={workdir}"]
            if processes > 1:
                command += [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"]
                command += [f"--process_id={index}"]
            own = changes | (changed or {}) if index == processes - 1 else changes
            command += [f"--config.{key}={value}" for key, value in own.items()]
            self.records.append(workdir / f"seen_{processes}_{index}")
            self.processes.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment | {"RECORD": str(self.records[-1])},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        self.started += self.processes

    def end(self):
        """Waits for the processes, and returns their exit codes and outputs."""
        outputs = [process.communicate(timeout=300)[0] for process in self.processes]
        return [process.returncode for process in self.processes], outputs

    def done(self):
        """Waits until the run has succeeded."""
        codes, outputs = self.end()
        assert not any(codes), "\n".join(outputs)
        return self

    def wait_for(self, text):
        """Reads the output of process 0 up to a line with this text; returns the line."""
        for line in self.processes[0].stdout:
            if text in line:
                return line
        raise AssertionError(f"{text!r} is not in the output")

    def losses(self):
        """Reads the losses of both networks, [STEPS, 2], over all starts of the run."""
        events = EventAccumulator(str(self.workdir), size_guidance={"tensors": 0}).Reload()
        tags = "train/loss/generator", "train/loss/discriminator"
        found = {
            tag: {
                event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)
            }
            for tag in tags
        }
        return np.array([[found[tag][step + 1] for tag in tags] for step in range(STEPS)])

    def seen(self):
        """Reads the sorted checksums of images and masks of each step, over all processes."""
        records = [record.read_text().splitlines() for record in self.records]
        steps = [[json.loads(line) for line in lines] for lines in zip(*records, strict=True)]
        return [sorted(map(tuple, sum(step, []))) for step in steps]


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """A run of one process with one device."""
    return Run(folder, tmp_path_factory.mktemp("alone")).done()


@pytest.mark.parametrize("processes, devices", [(1, 8), (2, 2), (4, 1)])
def test_several_processes_and_devices_match_one(folder, alone, tmp_path, processes, devices):
    several = Run(folder, tmp_path, processes=processes, devices=devices).done()
    same(several.losses(), alone.losses())
    assert several.seen() == alone.seen() and len(alone.seen()) == STEPS


def test_two_processes_stop_together_and_one_resumes(folder, alone, tmp_path):
    pair = Run(folder, tmp_path, processes=2, num_steps=10**6, checkpoint_every=0)
    pair.wait_for("step 1/")
    pair.processes[1].send_signal(signal.SIGTERM)
    codes, outputs = pair.end()
    assert codes == [75, 75]
    assert re.search(r"Stopped on request after step \d+; it is saved", outputs[1])
    pair = Run(folder, tmp_path / "half", processes=2, num_steps=5).done()
    one = Run(folder, tmp_path / "half").done()
    same(one.losses(), alone.losses())
    assert pair.seen() + one.seen() == alone.seen()


@pytest.mark.parametrize("compiling, preempted", [((0, 1), 1), ((1,), 0)])
def test_processes_stop_together_during_a_compilation(folder, tmp_path, compiling, preempted):
    prelude = COMPILING.replace("{0}", f"{compiling}")
    pair = Run(folder, tmp_path, processes=2, prelude=prelude)
    pair.wait_for("compiling")
    time.sleep(1)  # The other process may be a little later.
    pair.processes[preempted].send_signal(signal.SIGTERM)
    sent = time.monotonic()
    codes, outputs = pair.end()
    assert codes == [75, 75], "\n".join(outputs)
    print(f"{time.monotonic() - sent:.1f} s from SIGTERM to the end of both")
    assert time.monotonic() - sent < 15
    assert all("Stopped on request before the first step" in lines for lines in outputs)


def test_killed_process_ends_the_others_with_an_error_line(folder, tmp_path):
    pair = Run(folder, tmp_path, processes=2, num_steps=10**6)
    pair.wait_for("step 20/")
    pair.processes[1].kill()
    killed = time.monotonic()
    codes, outputs = pair.end()
    assert time.monotonic() - killed < 20  # The heartbeat timeout is longer.
    assert codes == [1, -signal.SIGKILL]
    last = outputs[0].strip().splitlines()[-1]
    # The process is killed during a step or during a save.
    assert re.match(
        "error: (Process 0 of 2 has lost another process|A checkpoint could not be)", last
    )


def test_checkpoints_read_during_training_are_intact(folder, tmp_path):
    # Each step is saved and replaces the previous one, so readers meet every state of the folder.
    one = Run(folder, tmp_path, num_steps=10**6, checkpoint_every=1, keep_latest=1)
    one.wait_for("step 3/")  # Step 2 is being saved, so step 1 is there.
    # `run.read` compares checksums.
    steps = [int(run.read(tmp_path).metadata["step"]) for _ in range(READS)]
    print(f"{READS} reads during steps {steps[0]} to {steps[-1]}")
    assert steps == sorted(steps) and len(set(steps)) > READS / 4
    one.processes[0].terminate()
    assert one.end()[0] == [75]


def final(workdir):
    """Reads the checksums of all arrays of the last checkpoint: both networks and optimizers."""
    folder = workdir.absolute() / "checkpoints"
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(folder, options=options) as manager:
        metadata = manager.metadata(manager.latest_step())
    return metadata.custom_metadata["arrays"]["crc32"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_run_that_is_killed_repeatedly_loses_nothing(folder, tmp_path, number):
    steps = {"num_steps": 1000, "checkpoint_every": 7, "log_every": 3}
    unbroken = Run(folder, tmp_path / "unbroken", **steps).done()
    random.seed(0)
    for kill in range(1, KILLS + 1):
        broken = Run(folder, tmp_path / "broken", **steps)
        print(number.name, kill, broken.wait_for("parameters on").strip())
        for _ in range(random.randint(0, 10)):
            broken.wait_for("step ")
        time.sleep(random.uniform(0, 0.5))
        assert broken.processes[0].poll() is None, "The run is too short for so many kills."
        broken.processes[0].send_signal(number)
        codes, outputs = broken.end()
        assert codes in ([-signal.SIGKILL], [75]), outputs
    broken = Run(folder, tmp_path / "broken", **steps).done()
    assert final(broken.workdir) == final(unbroken.workdir)
    assert not (broken.workdir / "corrupt").exists()


def test_error_in_one_of_two_processes_moves_no_checkpoint_and_ends_both(folder, tmp_path):
    Run(folder, tmp_path, num_steps=5).done()
    pair = Run(folder, tmp_path, processes=2, prelude=STALE)
    started = time.monotonic()
    codes, outputs = pair.end()
    assert codes == [1, 1] and time.monotonic() - started < 200
    for lines in outputs:
        assert "Checkpoint 5 of" in lines and "cannot be read now in process 1 of 2" in lines
        assert "Stale file handle" in lines
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]
    assert not (tmp_path / "corrupt").exists()
    Run(folder, tmp_path, processes=2, num_steps=6).done()
    assert (tmp_path / "checkpoints/6").is_dir()


def test_different_configs_of_processes_raise_an_error(folder, tmp_path):
    codes, outputs = Run(folder, tmp_path, processes=2, changed={"optimizer.beta1": 0.25}).end()
    assert codes == [2, 2]
    assert all("The config must be the same for all 2 processes" in lines for lines in outputs)
