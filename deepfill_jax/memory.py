"""Memory limits of the attention, and return of freed memory to the system."""

import contextlib
import ctypes

import jax


def attention_memory() -> int:
    """Returns the default memory limit for attention scores in bytes.

    On CPUs it is 64 MiB; larger blocks are slower, because less of them fits into the caches. On
    GPUs it is an eighth of the memory that JAX may use, because small blocks of rows do not fill
    the GPU, and each block computes two more rows than it returns.
    """
    stats = jax.local_devices()[0].memory_stats() or {}  # None on CPUs.
    return max(stats.get("bytes_limit", 0) // 8, 2**26)


def release_freed_memory() -> None:
    """Returns memory freed after compilation to the system; glibc would keep 0.05 to 0.3 GB.

    With other C libraries this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
