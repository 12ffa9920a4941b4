"""Whatever holds weights, read by the reader that knows it."""

from collections.abc import Mapping
from pathlib import Path

import safetensors

from deepfill_jax import model_metadata, trained, weights
from deepfill_jax.convert import mmagic, nipponjo, run, tensor_bundle, tensorflow1, torch_file
from deepfill_jax.convert.layout import Conversion
from deepfill_jax.errors import UsageError
from deepfill_jax.tensors import flatten

TORCH_SUFFIXES = (".pth", ".pt")


def find(source: str | Path, step: int | str | None = None) -> tuple[Path, int | str | None]:
    """Splits RUN@STEP, the folder of a run with a step, into the two; finds models by name.

    Returns:
        The path and the step: that of RUN@STEP, otherwise the argument.

    Raises:
        UsageError: STEP is not a number or "best".
    """
    path = trained.find(source)
    folder, at, named = str(source).rpartition("@")
    if at and not path.exists() and (Path(folder) / run.CONFIG).is_file():
        return Path(folder), run.parse_step(named)
    return path, step


def read(source: str | Path, *, step: int | str | None = None) -> Conversion:
    """Reads weights.

    Args:
        source: A model file, or a name of `trained.names`. The folder of a run of
            ours, for the networks of its newest checkpoint; FOLDER@STEP or FOLDER@best for
            another one. A file of MMagic or of nipponjo, `.pth`, `.pt`. A TF1 checkpoint: its
            prefix, one of its files, or its folder.
        step: Of a run's checkpoint, instead of @STEP: a number, or "best".

    Raises:
        UsageError: It is none of these, is damaged, holds another network, or its weights are not
            finite.
        RunError: A run's checkpoint cannot be read now.
    """
    conversion = _read(*find(source, step))
    tensors = flatten(weights.networks(conversion.model))
    model_metadata.check_values(tensors, source=str(source))
    return conversion


def _read(path: Path, step: int | str | None) -> Conversion:
    if step is not None and not (path / run.CONFIG).is_file():
        raise UsageError(f"{path} is not the folder of a run, so it has no step {step}.")
    if path.suffix.lower() in TORCH_SUFFIXES:
        content = torch_file.load(path)
        if isinstance(content, Mapping) and "G" in content:
            return nipponjo.from_file(path, content)
        return mmagic.from_file(path, content)
    if path.suffix.lower() == trained.SUFFIX or weights.is_model_file(path):
        return _read_own(path)
    if (path / run.CONFIG).is_file():
        return _as_it_is(run.read(path, step=step), "float32")
    if prefix := tensor_bundle.find_prefix(path):
        return tensorflow1.read(prefix)
    if not path.exists():
        return _read_own(path)  # Which says so.
    raise UsageError(
        f"{path} is no known source of weights; known are names ({', '.join(trained.names())}), "
        f"model files ({trained.SUFFIX}), the folders of training runs, files of MMagic and "
        f"nipponjo ({', '.join(TORCH_SUFFIXES)}), and TF1 checkpoints (their prefix or folder)."
    )


def _read_own(path: Path) -> Conversion:
    model = weights.load(path)
    with safetensors.safe_open(path, "numpy") as file:
        dtype = file.get_tensor("generator/coarse/encode1/kernel").dtype
    return _as_it_is(model, str(dtype), path)


def _as_it_is(model: weights.Model, dtype: str, *files: Path) -> Conversion:
    names = flatten(weights.networks(model))
    return Conversion(model, {name: name for name in names}, dtype, files)
