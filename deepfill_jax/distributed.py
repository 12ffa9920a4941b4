"""Multi-process runs: start-up, consistency checks, preemption and loss of a process.

One process can use all devices of its machine, so several processes are needed for several machines
only. Communication is JAX's own: a coordinator in process 0, to which the other processes connect.
"""

import concurrent.futures
import contextlib
import logging
import os
import platform
import secrets
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from deepfill_jax.errors import PreemptedError, RunError, UsageError, report

logger = logging.getLogger(__name__)

# A process without a heartbeat for this time counts as lost. On CPUs, a broken connection is
# noticed immediately.
HEARTBEAT_SECONDS = 30
# Time for all processes of a run to start; importing packages can take long on slow disks.
START_SECONDS = 300
MAX_CORES = 8192  # Numbers of CPU cores are below this limit of Linux.
# Interval in which processes that wait for a result of process 0 hear from it.
POLL_SECONDS = 2.0
# Environment variables with the number of tasks of a job, set by launchers that JAX supports.
TASK_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
# The same of launchers and jobs that JAX does not recognise, each with the variable of the index.
OTHER_TASK_COUNTS = {
    "SLURM_NTASKS": "SLURM_PROCID",
    "PMI_SIZE": "PMI_RANK",
    "WORLD_SIZE": "RANK",
}


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Connects to the other processes of the run; must be called before JAX uses a device.

    Without arguments, this does nothing if there is only one process. Under `srun` or `mpirun` with
    several tasks, JAX finds the values itself; each task then uses one GPU of its machine.

    Args:
        coordinator: HOST:PORT of process 0, which listens on this address only.
        num_processes: Number of processes of the run.
        process_id: Index of this process, from 0.

    Raises:
        UsageError: Only some of the arguments are given, or the processes cannot connect.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    alone = not any(_tasks(name) > 1 for name in TASK_COUNTS)
    if num_processes == 1 or (len(missing) == len(given) and alone):
        _warn_if_one_of_several()
    if len(missing) == len(given) and alone:
        return
    if 0 < len(missing) < len(given):
        raise UsageError(f"{' and '.join(missing)} missing: {', '.join(given)} go together.")
    where = f" at {coordinator}" if coordinator else ""
    # If they do not join in time, JAX ends the process with a stack trace; this line explains it.
    print(f"Waiting for the other processes{where}, {START_SECONDS} s at most.", flush=True)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            coordinator_bind_address=coordinator,
            # Inside a SLURM job, JAX would otherwise use only one GPU, despite the given arguments.
            cluster_detection_method="deactivate" if coordinator else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=START_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"Process {process_id} of {num_processes} cannot join at {coordinator}: {reason}"
        ) from error


def _tasks(name: str) -> int:
    """Returns the number of tasks in an environment variable; 1 if there is none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 1


def _warn_if_one_of_several() -> None:
    """Warns that a launcher has started several processes, each of which runs alone."""
    indices = OTHER_TASK_COUNTS | {
        "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
        "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    }
    for name, index in indices.items():
        if (count := _tasks(name)) > 1:
            logger.warning(
                "The environment says %s=%d, but this process runs alone. To run %d processes "
                "together, give each --coordinator=HOST:PORT of process 0, --num_processes=%d and "
                "--process_id=$%s.",
                *(name, count, count, count, index),
            )
            return


def assert_same_on_all_processes(what: str, value: str) -> None:
    """Checks that a value is the same in all processes.

    This must be called once before compiling large functions: on CPUs, the first communication
    between processes has a timeout of 30 s, and later communication a longer one.

    Args:
        what: Name of the value, for the message.
        value: Value in this process, of any length; only its checksum is sent.

    Raises:
        UsageError: The values differ. It is raised in all processes.
    """
    # Names of files are bytes, which need not be UTF-8.
    checksum = np.uint32(zlib.crc32(value.encode("utf-8", "surrogateescape")))
    checksums = multihost_utils.process_allgather(checksum).flatten()
    different = [str(i) for i, checksum in enumerate(checksums) if checksum != checksums[0]]
    if different:
        raise UsageError(
            f"{what} must be the same for all {len(checksums)} processes, but differs from process "
            f"0 in {', '.join(different)}."
        )


def own_cores() -> int:
    """Returns the number of CPU cores of this process, at least 1.

    Cores that several processes of the run may use, because a launcher has not bound them, are
    divided between these.
    """
    if not hasattr(os, "sched_getaffinity"):
        return max((os.cpu_count() or 1) // jax.process_count(), 1)
    own = sorted(os.sched_getaffinity(0))
    usable = np.zeros(MAX_CORES + 1, np.uint32)
    usable[own], usable[-1] = 1, zlib.crc32(platform.node().encode())
    of_all = np.reshape(multihost_utils.process_allgather(usable), (-1, MAX_CORES + 1))
    users = of_all[of_all[:, -1] == usable[-1], :-1].sum(axis=0)  # Those on this machine.
    return max(int(sum(1 / users[own]) + 1e-6), 1)


def is_shared(folder: Path) -> bool:
    """Returns whether all processes of the run see the same folder, in which each may write.

    It is True in a run of one process.
    """
    if not jax.distributed.is_initialized():
        return True
    name = np.frombuffer(secrets.token_bytes(8), np.uint8)
    marker = folder / np.asarray(multihost_utils.broadcast_one_to_all(name)).tobytes().hex()
    with contextlib.suppress(OSError):
        if jax.process_index() == 0:
            marker.touch()
    multihost_utils.sync_global_devices(f"{marker.name} is written")
    seen = multihost_utils.process_allgather(np.bool_(marker.exists()))
    with contextlib.suppress(OSError):
        if jax.process_index() == 0:
            marker.unlink()
    return bool(seen.all())


def from_process_0(compute: Callable[[], bytes]) -> bytes:
    """Computes a value in process 0 only, and returns it in all processes, however long it takes.

    The others meet process 0 every `POLL_SECONDS`, because a longer wait for another process would
    count as the loss of it.

    Raises:
        UsageError: `compute` raised it. It is raised in all processes.
    """
    if not jax.distributed.is_initialized():
        return compute()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    future = pool.submit(compute) if jax.process_index() == 0 else None
    try:
        size = -1
        while size < 0:  # While process 0 computes.
            answer = _answer(future)
            own_size = np.int64(-1 if answer is None else len(answer))
            size = int(multihost_utils.broadcast_one_to_all(own_size))
    finally:
        pool.shutdown(wait=False)  # If another process is lost, this one must end at once.
    own = np.zeros(size, np.uint8) if answer is None else np.frombuffer(answer, np.uint8)
    failed, *_ = answer = np.asarray(multihost_utils.broadcast_one_to_all(own)).tobytes()
    if failed:
        raise UsageError(answer[1:].decode("utf-8", "surrogateescape"))
    return answer[1:]


def _answer(future: "concurrent.futures.Future[bytes] | None") -> bytes | None:
    """Waits for a result; a leading byte tells whether it is the message of a UsageError."""
    if future is None:
        return None
    try:
        return b"\0" + future.result(timeout=POLL_SECONDS)
    except concurrent.futures.TimeoutError:
        return None
    except UsageError as error:
        return b"\1" + str(error).encode("utf-8", "surrogateescape")


@contextlib.contextmanager
def abort_on_error() -> Iterator[None]:
    """In a run of several processes, exits immediately after an error and prints one line.

    At a normal exit, JAX waits for the other processes. These may themselves wait for this one
    until the heartbeat timeout. If a process is lost, JAX prints an error of forty lines.
    """
    try:
        yield
    except PreemptedError:  # All processes stop together.
        raise
    except Exception as error:
        if jax.process_count() == 1:
            raise
        name = f"Process {jax.process_index()} of {jax.process_count()}"
        if isinstance(error, jax.errors.JaxRuntimeError):
            error = RunError(
                f"{name} has lost another process or a device ({str(error).splitlines()[0]}). "
                "Restart all processes: training resumes from the newest checkpoint."
            )
        code = report(error)
        sys.stdout.flush()
        os._exit(code)
