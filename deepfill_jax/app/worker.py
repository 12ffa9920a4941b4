"""The worker process, in which images are read, inpainted and encoded.

Neither a compiled program nor an image decoder can be interrupted. In a process of their own they
can be ended at any time, and neither a crash nor a lack of memory ends the server.
"""

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Concatenate, ParamSpec, TypeVar

from deepfill_jax.app import worker_process
from deepfill_jax.app.filling import Filler
from deepfill_jax.app.packing import pack
from deepfill_jax.app.queue import CancelledError
from deepfill_jax.app.shared_flags import Flags
from deepfill_jax.app.work_limits import Limits
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.inpaint.classical import Method

GRACE_SECONDS = 0.4  # Time in which a stopped job may reach its next window before it is killed.
_POLL_SECONDS = 0.02
_SPAWN = multiprocessing.get_context("spawn")  # JAX does not work in forked processes.

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Job = Callable[Concatenate[Filler, Parameters], Result]


class Worker:
    """Runs jobs in a child process that keeps the models; a killed process is replaced."""

    def __init__(self, models: Mapping[str, Method], limits: Limits):
        """Takes the models by name, and the limits of a job; starts no process yet."""
        self._content = {name: pack(model) for name, model in models.items()}, limits
        self._max_seconds = limits.max_seconds
        self._lock = threading.Lock()  # `close` is called while another thread runs a job.
        self._is_closed = False
        self._process: SpawnProcess | None = None
        self._connection: Connection
        self._loading: threading.Thread
        self._flags = Flags()

    def start(self) -> None:
        """Starts the process if it does not run; it loads the models in the background."""
        with self._lock:
            if self._is_closed or (self._process and self._process.is_alive()):
                return
            self._connection, theirs = _SPAWN.Pipe()
            self._flags = _SPAWN.RawValue(Flags)
            self._process = _SPAWN.Process(
                target=worker_process.main, args=(theirs, self._flags), daemon=True
            )
            self._process.start()
            theirs.close()
            self._loading = threading.Thread(
                target=self._load, args=(self._connection,), daemon=True
            )
            self._loading.start()

    def _load(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):  # The process ended; `run` finds that out.
            connection.send(self._content)
            connection.recv()  # The process is ready.

    def close(self) -> None:
        """Ends the process for good, and cancels its job."""
        with self._lock:
            self._is_closed = True
            if self._process:
                self._process.kill()

    def is_starting(self) -> bool:
        """Whether the process is still loading the models."""
        return self._process is not None and self._loading.is_alive()

    def compiling(self) -> tuple[int, int, int] | None:
        """Returns the batch size, height and width for which the network is being compiled."""
        batch, height, width = self._flags.compiling
        return (batch, height, width) if batch else None

    def run(
        self,
        stop: threading.Event,
        job: Job[Parameters, Result],
        *arguments: Parameters.args,
        **options: Parameters.kwargs,
    ) -> Result:
        """Runs a job in the process and returns its result; only one call may run at a time.

        Args:
            stop: Ends the job within a second when it is set.
            job: A function of a module; its first argument is the `Filler` of the process.
            arguments: The other arguments, which are pickled, as is the result.
            options: The keyword arguments.

        Raises:
            CancelledError: `stop` was set before the job was done, or the worker is closed.
            UsageError: The job raised it, or took longer than the time limit.
            RunError: The job failed, or the process ended.
        """
        self.start()
        try:
            result, error = self._answer(stop, (job, arguments, options))
        except (EOFError, OSError) as lost:
            raise self._ended() from lost
        if error is not None:
            raise error
        return result

    def _answer(self, stop: threading.Event, call: tuple) -> tuple:
        """Sends a call, and waits for its result and its error."""
        while self.is_starting():
            if stop.is_set() or self._is_closed:
                raise CancelledError
            self._loading.join(_POLL_SECONDS)
        if self._is_closed:
            raise CancelledError
        self._flags.stop = False
        self._connection.send(call)
        deadline = time.monotonic() + self._max_seconds
        while not self._connection.poll(_POLL_SECONDS):
            if self._is_closed:  # The connection of a killed process closes when it has ended.
                raise CancelledError
            is_late = time.monotonic() > deadline
            if is_late or stop.is_set():
                self._end_job()
                raise self._too_slow() if is_late else CancelledError
        return self._connection.recv()

    def _end_job(self) -> None:
        """Ends the current job, and the process with it unless it soon reaches a window."""
        self._flags.stop = True
        if self._connection.poll(GRACE_SECONDS):
            self._connection.recv()
        else:
            self._replace()

    def _replace(self) -> int | None:
        """Kills the process and starts another one; returns the exit code of the first one."""
        assert self._process is not None
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._loading.join()
        self._connection.close()
        self.start()  # Now, so that the next request waits less.
        return code

    def _ended(self) -> Exception:
        """Returns the error of a job whose process ended; starts another process."""
        if self._is_closed:
            return CancelledError()
        assert self._process is not None
        self._process.join(1)  # Gives it time to end by itself, for its exit code.
        code = self._replace()
        return RunError(
            f"The process that fills images ended (exit code {code}), perhaps because it ran out "
            "of memory; try again, or try a smaller image."
        )

    def _too_slow(self) -> UsageError:
        return UsageError(
            f"The request took longer than {self._max_seconds:g} s, the limit of this server; "
            "mark less, send a smaller image, choose the strategy resize, or start the server with "
            "a larger --max-seconds."
        )
