"""Reads weights from any supported source: model files, runs, and files of other projects."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors

from deepfill_jax import model_metadata, published, trained, weights
from deepfill_jax.atomic_write import is_current
from deepfill_jax.convert import (
    mmagic,
    nipponjo,
    run,
    tensor_bundle,
    tensorflow1,
    torch_file,
    wrapped,
)
from deepfill_jax.convert.layout import Conversion
from deepfill_jax.errors import UsageError
from deepfill_jax.tensors import flatten

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
GENERATORS = ("generator", "generator_ema")


def find(source: str | Path, step: int | str | None = None) -> tuple[Path, int | str | None]:
    """Resolves names and addresses, and splits RUN@STEP into a run's folder and a step.

    Published weights are downloaded if they are not in the cache.

    Args:
        source: See `read`.
        step: The step to return if `source` contains none.

    Returns:
        The path and the step.

    Raises:
        UsageError: STEP is neither a number nor "best", or see `published.fetch`.
        RunError: See `published.fetch`.
    """
    address, at, generator = _split_generator(f"{source}")
    if published.is_remote(address):
        return Path(f"{published.fetch(address)}{at}{generator}"), step
    path = trained.find(source)
    folder, at, named = str(source).rpartition("@")
    if at and not path.exists() and (Path(folder) / run.CONFIG).is_file():
        return Path(folder), run.parse_step(named)
    return path, step


def read(source: str | Path, *, step: int | str | None = None) -> Conversion:
    """Reads weights.

    Args:
        source: One of the following.

            - The name of a bundled model, see `trained.names`, or the path of a model file.
            - The name or the address of published weights, see `published.fetch`.
            - The folder of a training run, for its newest checkpoint; FOLDER@STEP or FOLDER@best
              for another one.
            - A file of MMagic or nipponjo, `.pth`, `.pt` or `.ckpt`; FILE@generator or
              FILE@generator_ema for one of two generators.
            - A TF1 checkpoint: its prefix, one of its files, or its folder.
        step: Step of a run's checkpoint, instead of @STEP: a number, or "best".

    Raises:
        UsageError: The source is none of these, is damaged, contains another network, or its
            weights are not finite.
        RunError: A run's checkpoint cannot be read now, or a download failed.
    """
    conversion = _read(*find(source, step))
    tensors = flatten(weights.networks(conversion.model))
    model_metadata.check_values(tensors, source=str(source))
    return conversion


def local_names() -> list[str]:
    """Returns the names of the models that need no download: the bundled and the cached ones."""
    return [*trained.names(), *(x for x in published.cached() if x in published.ENTRIES)]


def _read(path: Path, step: int | str | None) -> Conversion:
    if step is not None and not (path / run.CONFIG).is_file():
        raise UsageError(f"{path} is not the folder of a run, so it has no step {step}.")
    file, _, generator = _split_generator(f"{path}")
    path = path if path.exists() or not Path(file).is_file() else Path(file)
    # A TF1 checkpoint's prefix may end in .ckpt as well, but is not a file.
    if path.suffix.lower() in TORCH_SUFFIXES and (path.suffix != ".ckpt" or path.is_file()):
        if published.find_source(path) and not generator:
            return _read_cached(path)
        return _read_torch(path, generator or None)
    if path.suffix.lower() == trained.SUFFIX or weights.is_model_file(path):
        return _read_own(path)
    if (path / run.CONFIG).is_file():
        return _as_it_is(run.read(path, step=step), "float32")
    if prefix := tensor_bundle.find_prefix(path):
        return tensorflow1.read(prefix)
    if not path.exists():
        raise UsageError(
            f"There is no model file {path}; models by name: {', '.join(trained.names())}; "
            f"published ones: {', '.join(published.ENTRIES)}."
        )
    raise UsageError(
        f"{path} is not a supported source of weights. Give the name of a model "
        f"({', '.join(trained.names())}), a model file ({trained.SUFFIX}), the folder of a "
        f"training run, a file of MMagic or nipponjo ({', '.join(TORCH_SUFFIXES)}), or a TF1 "
        "checkpoint (its prefix or folder)."
    )


def _split_generator(source: str) -> tuple[str, str, str]:
    """Splits SOURCE@generator_ema at its @; without such an end, the last two parts are empty."""
    start, at, end = source.rpartition("@")
    return (start, at, end) if end in GENERATORS else (source, "", "")


def _read_cached(path: Path) -> Conversion:
    """Reads a downloaded file, and converts it once: the model file is kept beside it."""
    converted = path.with_suffix(trained.SUFFIX)
    if is_current(converted, [path]):
        return _read_own(converted)
    try:
        conversion = _read_torch(path, None)
    except UsageError as error:
        source = published.find_source(path)
        raise UsageError(f"{error} `deepfill models remove {source}` deletes it.") from error
    unfinished = converted.with_stem(f"{path.stem}.{os.getpid()}")  # Others may convert it, too.
    with contextlib.suppress(UsageError, OSError):  # The cache may be read-only.
        weights.save(unfinished, conversion.model)
        unfinished.replace(converted)
        return _read_own(converted)
    return conversion


def _read_torch(path: Path, generator: str | None) -> Conversion:
    content = torch_file.load(path)
    if isinstance(content, Mapping) and "G" in content:
        return nipponjo.from_file(path, content)
    state = wrapped.find_state(content)
    if isinstance(state, Mapping):
        plain = wrapped.unwrap(state)
        if wrapped.is_bare_nipponjo(
            plain, {*nipponjo.LAYERS.values(), *nipponjo.TF_LAYERS.values()}
        ):
            return nipponjo.from_file(path, {"G": plain})
    return mmagic.from_file(path, content, generator=generator)


def _read_own(path: Path) -> Conversion:
    model = weights.load(path)
    with safetensors.safe_open(path, "numpy") as file:
        dtype = file.get_tensor("generator/coarse/encode1/kernel").dtype
    return _as_it_is(model, str(dtype), path)


def _as_it_is(model: weights.Model, dtype: str, *files: Path) -> Conversion:
    names = flatten(weights.networks(model))
    return Conversion(model, {name: name for name in names}, dtype, files)
