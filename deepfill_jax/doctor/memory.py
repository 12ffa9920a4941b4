"""The check of memory: what a training step plans to take, and what is free."""

import dataclasses
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax.doctor.case import OK, WARNING, WRONG, Case, Finding, SkippedError
from deepfill_jax.train import build

GIB = 2**30
NEARLY = 0.8  # Share of free memory above which a plan may fail: other things need some too.


def memory(case: Case) -> Iterator[Finding]:
    """Compiles the training step, and compares what it plans to take with what is free."""
    case.need("mesh")
    config, mesh = case.config, case.mesh
    build.check_sizes(config, mesh)
    step = build.train_step(config, mesh)
    began = time.perf_counter()
    compiled = step.lower(build.abstract_state(config, mesh), _shapes(config)).compile()
    seconds = time.perf_counter() - began
    plan = compiled.memory_analysis()
    total = (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        + plan.temp_size_in_bytes
    )
    free, place = _free_memory(mesh)
    finding = judge_memory(total, free, place)
    if finding.level != WRONG:
        case.train_step = compiled
    yield dataclasses.replace(finding, text=f"{finding.text} Compiled in {seconds:.0f} s.")


def _free_memory(mesh: Mesh) -> tuple[int, str]:
    """Bytes that each device may take, and what they are of."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"], "JAX may take on each device"
    if jax.default_backend() != "cpu":
        raise SkippedError("this device does not say how much memory it has.")
    # Virtual devices of a CPU share its memory.
    return _available_memory() // mesh.size, "are free" + (
        f" for each of {mesh.size} devices" if mesh.size > 1 else ""
    )


def _available_memory() -> int:
    """MemAvailable of Linux, in bytes."""
    try:
        with open("/proc/meminfo") as lines:
            found = dict(line.split(":") for line in lines)
        return 1024 * int(found["MemAvailable"].split()[0])
    except (OSError, KeyError) as error:
        raise SkippedError("only Linux says how much memory is free.") from error


def judge_memory(plan: int, free: int, place: str) -> Finding:
    """Compares bytes that a step plans to take with those that are free."""
    text = f"a step plans to take {plan / GIB:.3g} GiB of {free / GIB:.3g} GiB that {place}"
    remedy = (
        "raise config.grad_accum_steps, set config.model.remat=True, or lower config.batch_size"
    )
    if plan > free:
        return Finding(WRONG, f"{text}; {remedy}.")
    if plan > NEARLY * free:
        return Finding(WARNING, f"{text}, which may not be enough; if it fails, {remedy}.")
    return Finding(OK, f"{text}.")


def _shapes(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    channels = {"image": 3, "mask": 1} | ({"sketch": 1} if config.model.guided else {})
    shape = config.batch_size, config.image_size, config.image_size
    return {n: jax.ShapeDtypeStruct((*shape, count), jnp.uint8) for n, count in channels.items()}
