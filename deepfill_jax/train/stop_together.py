"""A stop of several processes at once, before the first step has run.

JAX's own protocol stops all processes after the same step: each has to reach its end, which may
take minutes of compilation. Before the first step there is nothing to save, so the processes may
also end where they are. They must agree on one of the two: a process that begins the second step
while another one ends would fail.

The agreement is a key in the store that JAX's coordinator keeps, and the first process to write it
decides. JAX writes another one as soon as a process gets SIGTERM.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from orbax.checkpoint import multihost

# Key that JAX writes when a process gets SIGTERM. If a version of JAX does not, then the processes
# stop after the first step.
SIGTERM_KEY = "RECEIVED_PREEMPTION_NOTICE"
DECISION_KEY = "deepfill_jax/start"
RUN, STOP = "run", "stop"
POLL_SECONDS = 1.0  # Of each process; one coordinator answers them all.
# Time for all processes to notice the decision, and for the others to leave process 0.
NOTICE_SECONDS, LEAVE_SECONDS = 10, 1.0


@contextlib.contextmanager
def leaving(end: Callable[[], None]) -> Iterator[None]:
    """Ends all processes of the run if one gets SIGTERM before the body has ended in any of them.

    All processes must enter the context. If it lets the body end in one, it does so in all.

    Args:
        end: Ends this process. It is called in all processes, by another thread.
    """
    client = multihost.get_jax_distributed_client()
    stopping, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not _has(client, SIGTERM_KEY):
            if ended.wait(POLL_SECONDS):
                return
        if _decide(client, STOP) == STOP:
            stopping.set()
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # A process is late, or has gone.
                client.wait_at_barrier(DECISION_KEY, NOTICE_SECONDS * 1000)
            if jax.process_index() == 0:  # The coordinator, without which the others are aborted.
                time.sleep(LEAVE_SECONDS)
            end()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
        if _decide(client, RUN) == STOP:
            watcher.join()  # It ends this process.
    finally:
        ended.set()
        if stopping.is_set():  # The error is that another process has ended first.
            watcher.join()


def _decide(client: Any, decision: str) -> str:
    """Proposes a decision; returns the one that a process proposed first."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # There is one already.
        client.key_value_set(DECISION_KEY, decision)
    return client.blocking_key_value_get(DECISION_KEY, NOTICE_SECONDS * 1000)


def _has(client: Any, key: str) -> bool:
    try:
        client.key_value_try_get(key)
    except jax.errors.JaxRuntimeError:
        return False
    return True
