"""The training stream and the validation stream of a config."""

import functools
import logging
from collections.abc import Callable, Iterator

import jax
from ml_collections import ConfigDict

from deepfill_jax import distributed, masks
from deepfill_jax.data import pipeline, sources
from deepfill_jax.data.examples import Preprocessing
from deepfill_jax.errors import UsageError

logger = logging.getLogger(__name__)

SIZE_SAMPLES = 32  # Images whose sizes are read at the start.
MAX_WHOLE_SHARE = 0.5  # Share of images not larger than the crop above which training warns.


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


def warn_of_whole_crops(config: ConfigDict, source: sources.Source) -> None:
    """Warns if most of `SIZE_SAMPLES` images are not larger than `config.data.crop_size`."""
    crop = config.data.crop_size
    if not crop or jax.process_index() != 0:
        return
    try:
        image_sizes = sources.sizes(source, SIZE_SAMPLES)
    except UsageError:  # The stream replaces or reports the image when it is drawn.
        return
    if sources.whole_share(image_sizes, crop) > MAX_WHOLE_SHARE:
        width, height = image_sizes[0]
        logger.warning(
            "%s: images of %d x %d px are not larger than config.data.crop_size=%d, so the crop "
            "takes the whole image; use larger images, or set it to 0 if this is intended.",
            source.name,
            width,
            height,
            crop,
        )


def worker_count(config: ConfigDict) -> int:
    """Returns the number of worker processes; all processes of a run must call it together."""
    return config.data.workers or distributed.own_cores()


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
        workers=worker_count(config),
    )
    distributed.assert_same_on_all_processes(
        f"The {len(source)} images of {source.name}", source.identity()
    )
    return stream
