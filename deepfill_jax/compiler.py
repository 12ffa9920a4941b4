"""What depends on the kind of device: XLA's options, and the forms of computations."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import jax
from jax import lax

T = TypeVar("T")
Form = Literal["cpu", "default"]
_FORM: contextvars.ContextVar[Form | None] = contextvars.ContextVar("_FORM", default=None)


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


@contextlib.contextmanager
def use_form(form: Form | None) -> Iterator[None]:
    """Uses one form of each computation on all devices, in functions traced in the context.

    Functions that are compiled already are not affected.

    Args:
        form: "cpu": the forms that are fast on CPUs; "default": those for the other devices; None:
            chosen by device, see `by_device`.
    """
    token = _FORM.set(form)
    try:
        yield
    finally:
        _FORM.reset(token)


def by_device(*, cpu: Callable[..., T], default: Callable[..., T]) -> Callable[..., T]:
    """Returns a function that is `cpu` in programs for CPUs, and `default` in programs for others.

    The two compute the same, up to rounding. The choice is made when a program is lowered, not by
    the devices of this machine. A program for one kind of device contains one form only; a file
    exported for several kinds contains both.
    """
    form = _FORM.get()
    if form is None:
        return functools.partial(lax.platform_dependent, cpu=cpu, default=default)
    return cpu if form == "cpu" else default


def scan(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, inputs: Any) -> tuple[Any, Any]:
    """Runs `lax.scan`, unrolled on CPUs: XLA takes ten times as long for a convolution in a loop.

    Args:
        body: Maps the carry and the inputs of an iteration to the next carry and the results.
        carry: The first carry.
        inputs: Arrays whose first axis is the iteration.

    Returns:
        The last carry, and the stacked results.
    """
    run = by_device(
        cpu=functools.partial(lax.scan, body, unroll=True),
        default=functools.partial(lax.scan, body),
    )
    return run(carry, inputs)
