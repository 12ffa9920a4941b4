"""Backend-specific settings of XLA: compiler options, loop unrolling."""

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
