"""The peer process of this project: `Inpainter.predict` and configs/places.py's training step."""

import runpy
import sys
from pathlib import Path

import jax
import numpy as np
from peers import protocol

from deepfill_jax import Inpainter, sharding, weights
from deepfill_jax.huge_pages import restart_with_huge_pages
from deepfill_jax.image import to_float
from deepfill_jax.models import Discriminator, Generator
from deepfill_jax.tensors import flatten
from deepfill_jax.train import losses
from deepfill_jax.train.state import create_train_state, make_optimizer
from deepfill_jax.train.step import make_train_step

CONFIG = Path(__file__).parents[2] / "configs/places.py"  # Has MMagic's settings.


def make_calls(case, path, pictures):
    return (forward if case.kind == "forward" else train)(path, pictures)


def forward(path, pictures):
    inpainter = Inpainter.load(path)
    image, mask = next(pictures)
    image = np.asarray(to_float(image))

    def call():
        prediction = inpainter.predict(image, mask)
        return {"refined": prediction.refined, "completed": prediction.completed}

    return {"forward": call}


def train(path, pictures):
    config = runpy.run_path(str(CONFIG))["get_config"]()
    model = weights.load(path)
    networks = Generator(model.variant), Discriminator(model.variant)
    mesh = sharding.make_mesh(jax.devices()[:1])
    optimizers = [make_optimizer(**x) for x in (config.optimizer, config.discriminator_optimizer)]
    state = create_train_state(*networks, *optimizers, seed=0, averaged=False, mesh=mesh)
    state = state.replace(
        generator=state.generator.replace(params=model.generator),
        discriminator=state.discriminator.replace(**model.discriminator),
    )
    step = make_train_step(
        *networks,
        *optimizers,
        recipe=losses.Recipe(**config.loss),
        ema_decay=config.ema_decay,
        grad_accum_steps=config.grad_accum_steps,
        mesh=mesh,
    )
    carried = [jax.device_put(state, sharding.replicated(mesh))]

    def call():
        image, mask = next(pictures)
        batch = sharding.shard_batch({"image": image, "mask": mask}, mesh)
        carried[0], scalars = step(carried[0], batch)
        jax.block_until_ready(carried[0])
        return {name: np.asarray(x) for name, x in scalars.items()}

    def trained():
        g, d = carried[0].generator, carried[0].discriminator
        discriminator = {"params": d.params, "spectral": d.spectral}
        tensors = flatten({"generator": g.params, "discriminator": discriminator})
        return {name: np.asarray(x) for name, x in tensors.items()}

    return {"train": call, "weights": trained}


if __name__ == "__main__":
    if sys.argv[1].startswith("train"):  # The training command uses huge pages too.
        restart_with_huge_pages()
    protocol.serve(make_calls, {"versions": f"jax {jax.__version__}", "threads": protocol.cores()})
