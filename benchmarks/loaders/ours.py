"""Our input pipeline with `configs/places.py`; the argument is the config's architecture."""

import runpy
from pathlib import Path

from deepfill_jax import masks
from deepfill_jax.data import pipeline, sources
from deepfill_jax.data.examples import Preprocessing

CONFIG = Path(__file__).parents[2] / "configs/places.py"


def batches(photos, cores, batch_size, architecture):
    config = runpy.run_path(str(CONFIG))["get_config"](architecture)
    data = config.data
    stream = pipeline.Stream(
        sources.open_source(f"folder:{photos}"),
        Preprocessing(config.image_size, data.crop_size, data.enlarge, data.flip),
        masks.sampler(**config.masks),
        seed=config.seed,
        batch_size=batch_size,
        workers=cores,
    )
    return pipeline.training_batches(stream)
