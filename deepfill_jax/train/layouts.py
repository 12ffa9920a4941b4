"""Layouts of the training state in checkpoints, and their conversion to the layout of a config.

A checkpoint has a running average or none, and the config that resumes it may differ. In earlier
versions, the optimizer states were those of `optax.chain(optax.clip_by_global_norm(...),
optax.adam(...))`, whose layout depended on whether there was clipping or a schedule.
"""

import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from deepfill_jax.train.state import NetState, PyTree, TrainState

Convert = Callable[[TrainState], TrainState]


def adapt(saved: Mapping[str, list[int]], target: TrainState) -> tuple[TrainState, Convert]:
    """Finds the layout in which a checkpoint was saved.

    Args:
        saved: The shapes of the checkpoint's arrays, by path.
        target: Shapes and dtypes of the state that the config needs.

    Returns:
        Shapes and dtypes of the state in the checkpoint's layout, and a function that converts the
        restored state to the layout of `target`.
    """
    names = "generator", "discriminator"
    as_saved = target.replace(**{name: _as_saved(saved, target, name) for name in names})

    def convert(state: TrainState) -> TrainState:
        averaged = bool(target.generator.average)
        return state.replace(
            generator=_converted(state.generator, averaged=averaged),
            discriminator=_converted(state.discriminator, averaged=False),
        )

    return as_saved, convert


def _as_saved(saved: Mapping[str, list[int]], target: TrainState, name: str) -> NetState:
    net: NetState = getattr(target, name)
    averaged = any(path.startswith(f"{name}/average/") for path in saved)
    return net.replace(
        average=net.params if averaged else {},
        opt_state=_optimizer_as_saved(saved, net.opt_state, f"{name}/opt_state"),
    )


def _optimizer_as_saved(saved: Mapping[str, list[int]], adam: PyTree, path: str) -> PyTree:
    """Nests the state of Adam as in the checkpoint.

    It is at PATH/0/0, or at PATH/1/0 if there was clipping, beside the count of the schedule.
    """
    for nested, clip in ((f"{path}/0", ()), (f"{path}/1", (optax.EmptyState(),))):
        if any(re.match(f"{nested}/0/mu/", name) for name in saved):
            scheduled = f"{nested}/1/count" in saved
            rate = optax.ScaleByScheduleState(adam.count) if scheduled else optax.EmptyState()
            return (*clip, (adam, rate))
    return adam


def _converted(net: NetState, *, averaged: bool) -> NetState:
    opt_state = net.opt_state
    if not hasattr(opt_state, "mu"):
        opt_state = opt_state[-1][0]
    # The average must not share buffers with the parameters, because steps donate both.
    average = (net.average or jax.tree.map(jnp.copy, net.params)) if averaged else {}
    return net.replace(opt_state=opt_state, average=average)
