"""Gradients of a loss over the parts of a batch, and the descent along them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from deepfill_jax import compiler
from deepfill_jax.train.objectives import Batch, PyTree, Scalars
from deepfill_jax.train.state import NetState


def descend(
    net: NetState, gradients: PyTree, optimizer: optax.GradientTransformation, step: jax.Array
) -> NetState:
    """Returns a network with updated parameters and optimizer state."""
    update = optax.with_extra_args_support(optimizer).update
    updates, opt_state = update(gradients, net.opt_state, net.params, step=step)
    return net.replace(params=optax.apply_updates(net.params, updates), opt_state=opt_state)


def accumulate(
    loss: Callable[[PyTree, PyTree, Batch], tuple[jax.Array, tuple[PyTree, Scalars]]],
    params: PyTree,
    spectral: PyTree,
    batch: Batch,
    grad_accum_steps: int,
) -> tuple[PyTree, PyTree, Scalars]:
    """Returns the gradients of `loss`, the vectors of the power iteration, and scalars.

    The parts of the batch run one after the other. Gradients and scalars are averaged over them;
    each part starts from the vectors of the part before.
    """
    differentiate = jax.grad(loss, has_aux=True)
    if grad_accum_steps == 1:
        gradients, (spectral, scalars) = differentiate(params, spectral, batch)
        return gradients, spectral, scalars

    def run_part(spectral: PyTree, part: Batch) -> tuple[PyTree, tuple[PyTree, Scalars]]:
        gradients, (spectral, scalars) = differentiate(params, spectral, part)
        return spectral, (gradients, scalars)

    # Part i takes rows i, i + n, ..., so that each device uses its own rows in every part.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, grad_accum_steps, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    spectral, stacked = compiler.scan(run_part, spectral, parts)
    gradients, scalars = jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
    return gradients, spectral, scalars
