"""What XLA needs to be told to run this network well on a CPU."""

import jax


def options() -> dict[str, str]:
    """Returns `compiler_options` for `jax.jit`, empty where none are needed.

    On a CPU, jaxlib 0.10 hands every convolution to YNNPACK, which takes about twice as long on
    these as XLA's own code (benchmarks/README.md). The option is the list of what YNNPACK may
    have; matrix products are as good either way. Asks JAX for its backend, so call it after
    `jax.distributed.initialize`.
    """
    if jax.__version_info__[:2] == (0, 10) and jax.default_backend() == "cpu":
        return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
    return {}


def unrolled(length: int) -> int:
    """Returns how many turns of a loop around convolutions to lay out in a row.

    On a CPU all of them: there XLA takes ten times as long for a convolution inside a loop.
    """
    return length if jax.default_backend() == "cpu" else 1
