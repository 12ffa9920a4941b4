"""Measures how far training with the optimised convolutions drifts from plain convolutions.

    python benchmarks/drift.py [--case training-64-2] [--steps 20] [--init unit_variance]

The two forms round differently. The script trains three times from the same random weights: with
the optimised convolutions; with XLA's own convolutions on upsampled maps; and with these again, but
from weights one float32 rounding larger, which shows how much the steps amplify rounding errors. It
prints the largest relative differences of the losses from those of the second run.
"""

import dataclasses

import jax
import numpy as np
import programs

from deepfill_jax import compiler, sharding
from deepfill_jax.models import Discriminator, Generator, make_variant
from deepfill_jax.models.variants import UNIT_VARIANCE
from deepfill_jax.train.step import make_train_step


def train(networks, batches, nudge=1.0):
    """Yields the losses of each step."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = programs.make_state(networks, mesh)
    params = jax.tree.map(lambda x: x * np.float32(nudge), state.generator.params)
    state = state.replace(generator=state.generator.replace(params=params))
    optimizers = programs.OPTIMIZER, programs.OPTIMIZER
    options = {"ema_decay": 0.0, "grad_accum_steps": 1, "mesh": mesh}
    step = make_train_step(*networks, *optimizers, recipe=programs.RECIPE, **options)
    for batch in batches:
        state, scalars = step(state, sharding.shard_batch(batch, mesh))
        yield {name: float(x) for name, x in scalars.items() if "norm" not in name}


def main() -> None:
    """Runs the command."""
    parser = programs.arguments(__doc__)
    parser.add_argument("--case", type=programs.parse_case, default="training-64-2")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--init", choices=("published", "unit_variance"), default="published")
    options = parser.parse_args()
    variant = make_variant(
        "mmagic", width=options.width, discriminator_width=max(1, options.width * 64 // 24)
    )
    if options.init == "unit_variance":
        variant = dataclasses.replace(variant, kernel_init=UNIT_VARIANCE)
    networks = Generator(variant), Discriminator(variant)
    picture, mask = options.case.pictures()
    batches = [
        {"image": np.roll(picture, step, axis=2), "mask": mask} for step in range(options.steps)
    ]
    runs = {"fast": list(train(networks, batches))}
    with compiler.use_form("default"):
        expected = list(train(networks, batches))
        runs["nudged"] = list(train(networks, batches, nudge=1 + np.finfo(np.float32).eps))
    for name, history in runs.items():
        differences = {
            loss: max(abs(a[loss] / b[loss] - 1) for a, b in zip(history, expected, strict=True))
            for loss in expected[0]
        }
        programs.report(
            options.output,
            run=name,
            init=options.init,
            case=str(options.case),
            steps=options.steps,
            differences={loss: float(f"{x:.2g}") for loss, x in differences.items()},
        )


if __name__ == "__main__":
    main()
