"""Where the curves of a run are written: TensorBoard, and Weights & Biases if the config asks."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from clu import metric_writers
from ml_collections import ConfigDict

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.errors import UsageError
from deepfill_jax.train import description

IDENTITY = "wandb.json"  # File in the run's folder with the run's id at Weights & Biases.


def create(config: ConfigDict, workdir: Path) -> metric_writers.MetricWriter:
    """Creates the writer of a run, and writes the config as hyperparameters.

    Only process 0 writes files; the others log at most.

    Raises:
        UsageError: `config.wandb` is set and the run cannot be started there, see `check`.
    """
    is_main_process = jax.process_index() == 0
    writer = metric_writers.create_default_writer(workdir, just_logging=not is_main_process)
    if not is_main_process:
        return writer
    if config.wandb:
        writer = metric_writers.MultiWriter([writer, WandbWriter(config.wandb, workdir)])
    hparams = {name.removeprefix("config."): x for name, x in description.leaves(config)}
    writer.write_hparams(hparams)
    return writer


def check(config: ConfigDict) -> None:
    """Checks that wandb is installed if the config asks for it.

    Raises:
        UsageError: It is not.
    """
    if config.wandb:
        _import_wandb(config.wandb)


def _import_wandb(project: str) -> ModuleType:
    try:
        import wandb
    except ImportError as error:
        raise UsageError(
            f"config.wandb={project!r} needs wandb: pip install 'deepfill_jax[wandb]'. Or set "
            "config.wandb='' to write only for TensorBoard."
        ) from error
    return wandb


class WandbWriter(metric_writers.MetricWriter):
    """Writes scalars, images, texts and hyperparameters to a run at Weights & Biases.

    A training that resumes in the same folder continues the same run there.
    """

    def __init__(self, project: str, workdir: Path):
        """Starts or continues the run of a folder.

        Args:
            project: The project at Weights & Biases.
            workdir: The run's folder; its name becomes the name of the run.

        Raises:
            UsageError: wandb is not installed, or cannot start the run.
        """
        self._wandb = _import_wandb(project)
        try:
            self._run = self._wandb.init(
                project=project,
                name=workdir.resolve().name,
                id=_identity(workdir),
                dir=os.fspath(workdir),
                resume="allow",
            )
        except Exception as error:  # Errors of wandb have no common class in all versions.
            raise UsageError(
                f"config.wandb={project!r}: Weights & Biases cannot start the run: {error}. "
                "Log in with `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline to upload "
                "the run later."
            ) from error

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes scalars."""
        self._run.log({name: float(value) for name, value in scalars.items()}, step=step)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Writes images [N, H, W, C] or [H, W, C], uint8 or floats in [0, 1]."""
        drawn = {}
        for name, image in images.items():
            array = np.asarray(image)
            batch = array if array.ndim == 4 else array[np.newaxis]
            drawn[name] = [self._wandb.Image(one) for one in batch]
        self._run.log(drawn, step=step)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Writes texts."""
        self._run.log(dict(texts), step=step)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes hyperparameters; a resumed run may change them."""
        self._run.config.update(dict(hparams), allow_val_change=True)

    def write_histograms(self, step: int, arrays: Any, num_buckets: Any = None) -> None:
        """Raises NotImplementedError: training writes no histograms."""
        raise NotImplementedError

    def write_summaries(self, step: int, values: Any, metadata: Any = None) -> None:
        """Raises NotImplementedError: training writes no summaries of other plugins."""
        raise NotImplementedError

    def write_videos(self, step: int, videos: Any) -> None:
        """Raises NotImplementedError: training writes no videos."""
        raise NotImplementedError

    def write_audios(self, step: int, audios: Any, *, sample_rate: int) -> None:
        """Raises NotImplementedError: training writes no sound."""
        raise NotImplementedError

    def flush(self) -> None:
        """Does nothing: wandb sends in the background, and the end of the program waits for it."""

    def close(self) -> None:
        """Marks the run as finished and waits until everything is sent."""
        self._run.finish()


def _identity(workdir: Path) -> str:
    """Returns the id of the folder's run; makes one at the first start."""
    path = workdir / IDENTITY
    try:
        return json.loads(path.read_text())["id"]
    except (OSError, ValueError, KeyError):
        identity = secrets.token_hex(8)
        with atomic_write(path) as unfinished:
            unfinished.write_text(json.dumps({"id": identity}) + "\n")
        return identity
