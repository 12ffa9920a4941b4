"""Ours: `Inpainter.predict`, and the training step of configs/places.py."""

import runpy
import sys
from pathlib import Path

import jax
import numpy as np
from peers import protocol

from deepfill_jax import Inpainter, losses, sharding, steps, train_state, weights
from deepfill_jax.huge_pages import restart_with_huge_pages
from deepfill_jax.image import to_float
from deepfill_jax.models import Discriminator, Generator

CONFIG = Path(__file__).parents[2] / "configs/places.py"  # Mirrors MMagic's.


def make_call(case, path):
    return (forward if case.kind == "forward" else train)(case, path)


def forward(case, path):
    inpainter = Inpainter.load(path)
    image, mask = case.pictures()
    image = np.asarray(to_float(image))

    def call():
        prediction = inpainter.predict(image, mask)
        return {"refined": prediction.refined, "completed": prediction.completed}

    return call


def train(case, path):
    config = runpy.run_path(str(CONFIG))["get_config"]()
    model = weights.load(path)
    networks = Generator(model.variant), Discriminator(model.variant)
    mesh = sharding.make_mesh(jax.devices()[:1])
    optimizers = [train_state.make_optimizer(**config.optimizer) for _ in networks]
    state = train_state.create_train_state(
        *networks, *optimizers, seed=0, averaged=False, mesh=mesh
    )
    state = state.replace(
        generator=state.generator.replace(params=model.generator),
        discriminator=state.discriminator.replace(**model.discriminator),
    )
    step = steps.make_train_step(
        *networks,
        *optimizers,
        recipe=losses.Recipe(**config.loss),
        average_decay=config.average_decay,
        microbatches=config.microbatches,
        mesh=mesh,
    )
    carried = [jax.device_put(state, sharding.replicated(mesh))]
    batch = sharding.shard_batch(dict(zip(("image", "mask"), case.pictures(), strict=True)), mesh)

    def call():
        carried[0], scalars = step(carried[0], batch)
        jax.block_until_ready(carried[0])
        return {name: np.asarray(x) for name, x in scalars.items()}

    return call


if __name__ == "__main__":
    if sys.argv[1].startswith("train"):  # As the command that trains does.
        restart_with_huge_pages()
    protocol.serve(make_call, {"versions": f"jax {jax.__version__}", "threads": protocol.cores()})
