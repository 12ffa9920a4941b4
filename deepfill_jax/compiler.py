"""Backend-specific settings of XLA: compiler options, loop unrolling."""

import jax


def options(*, training: bool = False, deterministic: bool = False) -> dict[str, str | bool]:
    """Returns `compiler_options` for `jax.jit`; empty if none are needed.

    On CPUs, jaxlib 0.10 computes all convolutions with YNNPACK, which takes about twice as long for
    these networks as XLA's own code (benchmarks/README.md). The option restricts YNNPACK to matrix
    products, which are equally fast in both. The function queries JAX's backend, so it must be
    called after `jax.distributed.initialize`.

    Args:
        training: Whether the program is a training step. It then compiles in two thirds of the time
            but needs more memory. Otherwise the older loop emitters are used, which need 0.3 GB
            less memory for an equally fast program.
        deterministic: On GPUs, use only kernels with a fixed order of summation and select them
            without timing, so that a run can be reproduced bit for bit. CPUs always are
            deterministic.
    """
    if deterministic and jax.default_backend() == "gpu":
        return {"xla_gpu_deterministic_ops": True}
    if jax.__version_info__[:2] != (0, 10) or jax.default_backend() != "cpu":
        return {}
    options: dict[str, str | bool] = {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"
    }
    if not training:
        options["xla_cpu_use_fusion_emitters"] = False
        options["xla_cpu_scheduler_type"] = "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
    return options


def unrolled(length: int) -> int:
    """Returns the number of iterations to unroll in a loop around convolutions.

    On CPUs all of them are unrolled, because XLA takes ten times as long for a convolution inside a
    loop.
    """
    return length if jax.default_backend() == "cpu" else 1
