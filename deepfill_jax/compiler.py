"""What the kind of device decides: XLA's options, loops or none, the memory of attention."""

import contextlib
import ctypes
import os
from pathlib import Path

import jax


def options(*, training: bool = False, deterministic: bool = False) -> dict[str, str | bool]:
    """Returns `compiler_options` for `jax.jit`, empty where none are needed.

    On a CPU, jaxlib 0.10 hands every convolution to YNNPACK, which takes about twice as long on
    these as XLA's own code (benchmarks/README.md). The option is the list of what YNNPACK may
    have; matrix products are as good either way. Asks JAX for its backend, so call it after
    `jax.distributed.initialize`.

    Args:
        training: Spend memory to compile a training step in two thirds of the time. Completing a
            picture must be small instead: the compiler's older way to make loops takes 0.3 GB less,
            for a program as fast.
        deterministic: On a GPU, take only kernels that sum in one order, and choose them without
            timing them, so that a run repeats bit for bit. On a CPU it always does.
    """
    if deterministic and jax.default_backend() == "gpu":
        return {"xla_gpu_deterministic_ops": True}
    if jax.__version_info__[:2] != (0, 10) or jax.default_backend() != "cpu":
        return {}
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
    if training:
        return options
    return options | {
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    }


def unrolled(length: int) -> int:
    """Returns how many turns of a loop around convolutions to lay out in a row.

    On a CPU all of them: there XLA takes ten times as long for a convolution inside a loop.
    """
    return length if jax.default_backend() == "cpu" else 1


def attention_memory() -> int:
    """Returns how many bytes attention's scores may take, where nobody says.

    On a CPU 64 MiB: more is slower, as less of it is in the caches. On a GPU an eighth of what JAX
    may take of its memory: small blocks of rows leave it idle, and each computes two rows more than
    it returns.
    """
    stats = jax.local_devices()[0].memory_stats() or {}  # A CPU has none.
    return max(stats.get("bytes_limit", 0) // 8, 2**26)


def give_back_memory() -> None:
    """Gives the system the memory that compiling has freed, which glibc would keep: 0.05 to 0.3 GB.

    Does nothing where the C library is another.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def cache_on_disk() -> None:
    """Keeps what is compiled in the user's cache folder, for the next start of a command.

    For commands alone, as it is a choice for the whole process. What the user has set by
    `JAX_COMPILATION_CACHE_DIR` stays, and where there is no such folder to write, nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "deepfill_jax" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # The latter where there is no home.
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", f"{folder}")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
