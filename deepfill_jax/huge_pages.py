"""Huge pages for training on CPUs."""

import os
import sys

_TUNABLE = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Restarts the running command with huge pages enabled in glibc.

    XLA allocates gigabytes of memory for every training step, which Linux provides in pages of
    4 KiB. With pages of 2 MiB, a step takes nine tenths of the time (benchmarks/README.md). glibc
    reads this setting from GLIBC_TUNABLES only when a process starts. If the user has set it, it is
    left unchanged. Only commands may call this function, before they import JAX.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or _TUNABLE in tunables:
        return
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{_TUNABLE}=1".lstrip(":")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
