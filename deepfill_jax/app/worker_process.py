"""The main function of the worker process, see `worker.Worker`."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection

from deepfill_jax.app.shared_flags import Flags
from deepfill_jax.errors import run_command


def main(connection: Connection, flags: Flags) -> None:
    """Runs jobs until the server ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the server, which ends this.
    threading.Thread(target=_end_with_server, daemon=True).start()
    # Not at the top, because JAX takes seconds to import, and Ctrl+C must be ignored by then.
    from deepfill_jax.app.jobs import run_jobs

    run_command(lambda: run_jobs(connection, flags))


def _end_with_server() -> None:
    server = multiprocessing.parent_process()
    assert server is not None
    server.join()
    os._exit(1)  # At once: a compiled program cannot be interrupted.
