"""Check of memory: compares the memory planned for a training step with the available memory."""

import dataclasses
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax.doctor.case import ERROR, OK, WARNING, Case, Finding, SkippedError, need
from deepfill_jax.train import build
from deepfill_jax.train.step import BoundStep

GIB = 2**30
MAX_SAFE_SHARE = 0.8  # Share of free memory above which a step may fail: other data needs some too.


def memory(case: Case) -> Iterator[Finding]:
    """Compiles the training step and compares its planned memory with the available memory."""
    config, mesh = case.config, need(case.mesh, "mesh")
    build.check_sizes(config, mesh)
    step = build.train_step(config, mesh)
    began = time.perf_counter()
    compiled = step.lower(build.abstract_state(config, mesh), _shapes(config)).compile()
    seconds = time.perf_counter() - began
    plan = compiled.memory_analysis()
    if plan is None:
        raise SkippedError("this device does not report the memory that a program needs.")
    total = (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        + plan.temp_size_in_bytes
    )
    free, which = _free_memory(mesh)
    finding = judge_memory(total, free, which)
    if finding.level != ERROR:
        weights = (step.weights,) if isinstance(step, BoundStep) else ()
        case.train_step = lambda state, batch: compiled(state, batch, *weights)
    yield dataclasses.replace(finding, text=f"{finding.text} Compiled in {seconds:.0f} s.")


def _free_memory(mesh: Mesh) -> tuple[int, str]:
    """Returns the available memory per device in bytes, and a phrase that says which it is."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"], "JAX may use on each device"
    if jax.default_backend() != "cpu":
        raise SkippedError("this device does not report the size of its memory.")
    # Virtual CPU devices share the machine's memory.
    return _available_memory() // mesh.size, "are free" + (
        f" for each of {mesh.size} devices" if mesh.size > 1 else ""
    )


def _available_memory() -> int:
    """Returns Linux's MemAvailable in bytes."""
    try:
        with open("/proc/meminfo") as lines:
            values = dict(line.split(":") for line in lines)
        return 1024 * int(values["MemAvailable"].split()[0])
    except (OSError, KeyError) as error:
        raise SkippedError("the amount of free memory is known on Linux only.") from error


def judge_memory(plan: int, free: int, which: str) -> Finding:
    """Compares the planned memory of a step with the available memory, both in bytes."""
    text = f"a training step needs {plan / GIB:.3g} GiB of {free / GIB:.3g} GiB that {which}"
    remedy = (
        "raise config.grad_accum_steps, set config.model.remat=True, or lower config.batch_size"
    )
    if plan > free:
        return Finding(ERROR, f"{text}; {remedy}.")
    if plan > MAX_SAFE_SHARE * free:
        return Finding(WARNING, f"{text}, which may not be enough; if training fails, {remedy}.")
    return Finding(OK, f"{text}.")


def _shapes(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    channels = {"image": 3, "mask": 1} | ({"sketch": 1} if config.model.guided else {})
    shape = config.batch_size, config.image_size, config.image_size
    return {n: jax.ShapeDtypeStruct((*shape, count), jnp.uint8) for n, count in channels.items()}
