"""The training stream and the validation stream of a config."""

import functools
from collections.abc import Callable, Iterator

import jax
from ml_collections import ConfigDict

from deepfill_jax import distributed, masks
from deepfill_jax.data import pipeline, sources
from deepfill_jax.data.examples import Preprocessing
from deepfill_jax.errors import UsageError


def open_source(config: ConfigDict, *, validation: bool = False) -> sources.Source:
    """Opens the training or validation images, with their edge maps if the model takes sketches.

    Training images that cannot be read keep their places in the order, so that the stream stays the
    same if they can be read at another start of the run.

    Raises:
        UsageError: Images or edge maps cannot be used.
    """
    source, edges = ("val_source", "val_edges") if validation else ("source", "edges")
    probability = config.data.sketch_probability
    if not 0 <= probability <= 1:
        raise UsageError(f"config.data.sketch_probability={probability} must be from 0 to 1.")
    if not config.model.guided or not probability:
        return sources.open_source(config.data[source], keep_places=not validation)
    if not config.data[edges]:
        raise UsageError(
            f"config.data.{edges} is missing: a guided model needs folder:PATH of the images' "
            "edge maps, which `python -m deepfill_jax.data.edges` makes, or "
            "config.data.sketch_probability=0."
        )
    return sources.open_source(
        config.data[source], edges=config.data[edges], keep_places=not validation
    )


def training_batches(
    config: ConfigDict, source: sources.Source | None = None
) -> Callable[[int], Iterator[pipeline.Batch]]:
    """Opens the training images; returns a function that starts the batches at a given step.

    Args:
        config: Config of the run.
        source: Training images that are open already; None opens those of the config.

    Raises:
        UsageError: Source, preprocessing or masks cannot be used.
    """
    stream = _stream(
        config,
        open_source(config) if source is None else source,
        seed=config.seed,
        batch_size=config.batch_size,
        flip=config.data.flip,
    )
    return functools.partial(pipeline.training_batches, stream)


def validation_batches(
    config: ConfigDict, source: sources.Source | None = None
) -> Callable[[], Iterator[pipeline.Batch]]:
    """Opens the validation images; returns a function that starts one pass over them.

    Args:
        config: Config of the run.
        source: Validation images that are open already; None opens those of the config.

    Raises:
        UsageError: Source, preprocessing or masks cannot be used.
    """
    stream = _stream(
        config,
        open_source(config, validation=True) if source is None else source,
        seed=config.eval.seed,
        batch_size=config.eval.batch_size,
        flip=False,
    )
    return functools.partial(pipeline.evaluation_batches, stream, config.eval.num_examples)


def _stream(
    config: ConfigDict, source: sources.Source, *, seed: int, batch_size: int, flip: bool
) -> pipeline.Stream:
    """Makes the stream; each process reads its own rows of the batches."""
    stream = pipeline.Stream(
        source,
        Preprocessing(config.image_size, config.data.crop_size, config.data.enlarge, flip=flip),
        masks.sampler(**config.masks),
        seed=seed,
        batch_size=batch_size,
        sketch_probability=config.data.sketch_probability if config.model.guided else None,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    distributed.assert_same_on_all_processes(
        f"The {len(source)} images of {source.name}", source.identity()
    )
    return stream
