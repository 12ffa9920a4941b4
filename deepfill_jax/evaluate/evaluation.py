"""Evaluation of one method on the validation images of a config."""

from pathlib import Path

from ml_collections import ConfigDict

from deepfill_jax import config as config_keys
from deepfill_jax import sharding
from deepfill_jax.data import streams
from deepfill_jax.data.sources import Source
from deepfill_jax.evaluate import methods, metrics, scoring
from deepfill_jax.models.generator import check_image_size


def evaluate(
    config: ConfigDict,
    method: str | Path | methods.Method,
    *,
    step: int | str | None = None,
    source: Source | None = None,
    output: str | Path | None = None,
    measure: scoring.Measure = metrics.measure,
) -> scoring.Report:
    """Scores a method on the validation images of a config, with frozen crops and masks.

        from deepfill_jax import config
        from deepfill_jax.evaluate import evaluate

        values = config.load("places")
        values.data.val_source = "folder:photos"
        print(evaluate(values, "scenes").table())

    All methods that are scored with the same config get the same images and holes. Below, S is
    `config.image_size`, and N the number of images: `config.eval.num_examples`, or all.

    Args:
        config: See `config.KEYS`; `config.load` loads a config by name. The evaluation reads
            `image_size`, `data`, `masks`, `eval` and `model.guided`.
        method: The name of a baseline or of a bundled model, a model file, a run's folder, or a
            folder of predictions of S x S pixels, see `methods.load`; or a loaded method, for
            which `config.eval.seamless` has no effect.
        step: Step of a run's checkpoint: a number, or "best"; the newest if None.
        source: Validation images that are open already; None opens those of the config.
        output: Folder for the images, uint8 of S x S pixels, and the scores; see `scoring.score`.
        measure: Computes the metrics; see `scoring.score`.

    Returns:
        The report, with N values of each metric, in the order of the images' index.

    Raises:
        UsageError: A key of the config, the data, the method or the output cannot be used.
        RunError: A process that prepares images has ended, or a run's checkpoint cannot be read.
    """
    config_keys.check(config)
    mesh = sharding.make_mesh()
    check_sizes(config, mesh)
    if not isinstance(method, methods.Method):
        method = methods.load(method, mesh, step=step, seamless=config.eval.seamless)
    batches = streams.validation_batches(config, source)()
    return scoring.score(method.complete, batches, output=output, measure=measure)


def check_sizes(config: ConfigDict, mesh: sharding.Mesh) -> None:
    """Checks the sizes of images and batches that an evaluation reads.

    Raises:
        UsageError: A size is not a multiple of what it must be. The message names the key.
    """
    check_image_size(config.image_size, name="config.image_size")
    sharding.check_batch_size(config.eval.batch_size, mesh, name="config.eval.batch_size")
