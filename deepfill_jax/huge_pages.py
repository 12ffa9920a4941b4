"""Huge pages for what a training on a CPU allocates."""

import os
import sys

_TUNABLE = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Starts the running command anew, with huge pages for its memory, where glibc can have them.

    XLA asks for the gigabytes of a training step anew at each step, and Linux hands them out 4 KiB
    at a time. In pages of 2 MiB, a step takes nine tenths of the time (benchmarks/README.md).
    glibc reads whether to ask for them only when a process starts, from GLIBC_TUNABLES; who has
    set this there keeps it. Call it first in a process, from a command alone.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or _TUNABLE in tunables:
        return
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{_TUNABLE}=1".lstrip(":")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
