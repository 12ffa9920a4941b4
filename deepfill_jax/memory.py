"""Memory: what attention may take of a device, and what compiling has freed."""

import contextlib
import ctypes

import jax


def attention_memory() -> int:
    """Returns how many bytes attention's scores may take, where nobody says.

    On a CPU 64 MiB: more is slower, as less of it is in the caches. On a GPU an eighth of what JAX
    may take of its memory: small blocks of rows leave it idle, and each computes two rows more than
    it returns.
    """
    stats = jax.local_devices()[0].memory_stats() or {}  # A CPU has none.
    return max(stats.get("bytes_limit", 0) // 8, 2**26)


def release_freed_memory() -> None:
    """Gives the system the memory that compiling has freed, which glibc would keep: 0.05 to 0.3 GB.

    Does nothing where the C library is another.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
