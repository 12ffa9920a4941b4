"""The processes of one run: how they find one another, stop together, and notice that one is gone.

One process sees all devices of its machine, so only several machines need several. The engine is
JAX's own: a coordinator in process 0, to which the others connect.
"""

import contextlib
import os
import signal
import sys
import zlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from deepfill_jax.errors import PreemptedError, RunError, UsageError, report

# A peer that has been silent for so long is gone. On CPUs a broken connection says so at once.
HEARTBEAT_SECONDS = 30
# For all processes of a run to start, on machines whose disks may be slow.
START_SECONDS = 300
# What launchers set where they have started several tasks of one job, and JAX finds the others.
TASK_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the run's other processes; alone, does nothing. Call it before JAX meets a device.

    Under `srun` or `mpirun` with several tasks nothing need be given; each task then takes one GPU,
    as many of them as there are tasks on its machine.

    Args:
        coordinator: HOST:PORT of process 0, which listens at this address and at no other.
        num_processes: Of the run.
        process_id: This one's, from 0.

    Raises:
        UsageError: Some are given and some are not, or no run of these processes can be made.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    alone = not any(int(os.environ.get(name) or 1) > 1 for name in TASK_COUNTS)
    if len(missing) == len(given) and alone:
        return
    if 0 < len(missing) < len(given):
        raise UsageError(f"{' and '.join(missing)} missing: {', '.join(given)} go together.")
    where = f" at {coordinator}" if coordinator else ""
    # If they do not come, JAX ends the process with a stack of its own.
    print(f"Waiting for the other processes{where}, {START_SECONDS} s at most.", flush=True)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            coordinator_bind_address=coordinator,
            # What was said is meant: inside a SLURM job JAX would still take one GPU of those here.
            cluster_detection_method="deactivate" if coordinator else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=START_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"Process {process_id} of {num_processes} cannot join at {coordinator}: {reason}"
        ) from error


def assert_same_on_all_processes(what: str, value: str) -> None:
    """Checks that all processes say the same.

    Call it once before compiling anything long: processes on CPUs must first speak to one another
    within 30 s, and wait for longer from then on.

    Args:
        what: What is compared, for the message.
        value: What this process has, of any length: a checksum is sent.

    Raises:
        UsageError: They do not, in all processes.
    """
    found = multihost_utils.process_allgather(np.uint32(zlib.crc32(value.encode())))
    others = [str(index) for index, checksum in enumerate(found.flat) if checksum != found.flat[0]]
    if others:
        raise UsageError(
            f"{what} must be the same for all {len(found)} processes; those of processes "
            f"{', '.join(others)} are not those of process 0."
        )


class StopSignal:
    """Whether the run has been asked to stop: by SIGTERM, which clusters send before they kill.

    Alone also by Ctrl-C. A context, as outside of it the signals mean what they meant before.
    """

    def __enter__(self) -> "StopSignal":
        self._asked, self._handlers = None, {}
        if not jax.distributed.is_initialized():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame) -> None:
        self._asked = number
        # The second time it stops at once.
        signal.signal(number, self._handlers[number])

    def reached(self, step: int) -> bool:
        """Whether to stop after this step, the same in all processes; call it at every step."""
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked is not None


@contextlib.contextmanager
def abort_on_error() -> Iterator[None]:
    """Where a run has several processes, an error in one ends it at once, with the error's line.

    At a usual exit JAX waits for the others. They may be waiting for this one, until they have
    not heard of it for long enough; or one is gone, which JAX says in forty lines.
    """
    try:
        yield
    except PreemptedError:  # All of them stop.
        raise
    except Exception as error:
        if jax.process_count() == 1:
            raise
        who = f"Process {jax.process_index()} of {jax.process_count()}"
        if isinstance(error, jax.errors.JaxRuntimeError):
            error = RunError(
                f"{who} has lost another one, or a device ({str(error).splitlines()[0]}). Start "
                "all of them again: training goes on from the newest checkpoint."
            )
        code = report(error)
        sys.stdout.flush()
        os._exit(code)
