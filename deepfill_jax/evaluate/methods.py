"""The methods that `evaluate` scores: a network, a classical baseline, a folder of predictions.

`load` loads the method that a name or a path means. Each has a function `complete`, which takes a
batch of the data pipeline, a dict of numpy arrays: "image" uint8 [B, H, W, 3], "mask" uint8 [B, H,
W, 1] with 1 in the hole, "valid" bool [B], False for padding, "index" int64 [B], the number of the
image in its data set, and for guided networks "sketch", like "mask", 1 on the lines. It returns a
dict of "completed", the completed images, [B, H, W, 3] in 0..255; a network adds the results of
`make_inference_step`. If there are several processes, each has its own rows.
"""

import functools
from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deepfill_jax import compiler, sharding, trained, weights
from deepfill_jax.convert import run, sources, tensor_bundle
from deepfill_jax.errors import UsageError
from deepfill_jax.image import composite, floats, mask_out, to_255
from deepfill_jax.inpaint import classical
from deepfill_jax.inpaint.seamless import match_border
from deepfill_jax.models import Generator, Variant
from deepfill_jax.pictures import rgb

Batch = dict[str, np.ndarray]
Complete = Callable[[Batch], dict[str, np.ndarray]]

_RESULT_SUFFIXES = (".png", ".jpg", ".jpeg")


class Method(NamedTuple):
    """A method to evaluate.

    Attributes:
        name: Name of its folder and of its column in the report.
        complete: Completes one batch; see the top of this file.
        model: The model of a network; None for other methods.
    """

    name: str
    complete: Complete
    model: weights.Model | None = None


def load(
    method: str | Path,
    mesh: Mesh,
    *,
    step: int | str | None = None,
    seamless: bool = False,
) -> Method:
    """Loads the method that a name or a path means.

    Args:
        method: The name of a baseline, a key of `classical.BASELINES`; the name of a bundled model;
            weights, see `sources.read`; or a folder of predictions, see `folder_complete`. A name
            takes precedence over a file or folder of the same name, which is written "./NAME".
        mesh: The devices that a network runs on.
        step: See `load_network`.
        seamless: See `make_inference_step`.

    Raises:
        UsageError: The method does not exist, cannot be read, or has no such step.
        RunError: A run's checkpoint cannot be read now.
    """
    if step is None and str(method) in classical.BASELINES:
        return load_baseline(str(method))
    path, step = sources.find(method, step)
    is_run = (path / run.CONFIG).is_file()
    if is_run or step is not None or path.is_file() or tensor_bundle.find_prefix(path):
        return load_network(path, mesh, step=step, seamless=seamless)
    if path.is_dir():
        return load_predictions(path)
    raise UsageError(
        f"There is no method {method}. Give the name of a baseline "
        f"({', '.join(sorted(classical.BASELINES))}) or of a model ({', '.join(trained.names())}), "
        "or the path of a model file, of a run's folder or of a folder of predictions."
    )


def load_network(
    source: str | Path,
    mesh: Mesh,
    *,
    step: int | str | None = None,
    seamless: bool = False,
) -> Method:
    """Loads the generator of any weights.

    The method is named after the file; a checkpoint of a run is named "step_" and its step.

    Args:
        source: See `sources.read`.
        mesh: The devices that the network runs on.
        step: Step of a run's checkpoint: a number, or "best"; the newest if None.
        seamless: See `make_inference_step`.

    Raises:
        UsageError, RunError: See `sources.read`.
    """
    path, step = sources.find(source, step)
    model = sources.read(path, step=step).model
    is_run = (path / run.CONFIG).is_file()
    name = f"step_{model.metadata['step']}" if is_run else path.stem
    step_of_network = make_evaluation_step(Generator(model.variant), mesh, seamless=seamless)
    params = jax.device_put(model.generator, sharding.replicated(mesh))
    return Method(name, functools.partial(step_of_network, params), model)


def load_baseline(name: str) -> Method:
    """Finds a classical baseline by its name; see `baseline_complete`."""
    return Method(name, baseline_complete(name))


def load_predictions(folder: str | Path) -> Method:
    """Opens a folder of predictions; see `folder_complete`."""
    return Method("predictions", folder_complete(folder))


def make_evaluation_step(
    generator: Generator, mesh: Mesh, *, seamless: bool = False
) -> Callable[[Any, Batch], dict[str, np.ndarray]]:
    """Makes (params, batch of the data pipeline) -> results of `make_inference_step` in numpy.

    Batches must split evenly over the mesh. The results include the attention's offsets. With its
    parameters bound, the function is a `complete`. Training validates with it, so that the network
    is compiled once for all parameters.
    """
    infer = make_inference_step(generator, mesh, offsets=True, seamless=seamless)

    def evaluation_step(params: Any, batch: Batch) -> dict[str, np.ndarray]:
        images = inputs(batch, generator.variant)
        result = infer(params, sharding.shard_batch(images, mesh))
        return {name: sharding.local_rows(rows) for name, rows in result.items()}

    return evaluation_step


def make_inference_step(
    generator: Generator, mesh: Mesh, *, offsets: bool = False, seamless: bool = False
) -> Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """Makes (params, batch) -> {"masked", "coarse", "completed"}, float32 in 0..255, [B, H, W, 3].

    The batch has the keys of the training step's. Known pixels of "completed" equal the image's
    exactly. With `offsets`, the result also has "offsets", those of the attention, see
    `attention.Attention`. With `seamless`, the colors of "completed" are matched to the image at
    the border of the hole, see `seamless.match_border`.
    """

    def inference_step(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        image, mask, sketch = floats(batch)
        masked = mask_out(image, mask)
        predicted, sown = generator.apply(
            {"params": params}, masked, mask, sketch, mutable=["intermediates"]
        )
        filled = match_border(predicted.refined, image, mask) if seamless else predicted.refined
        result = {
            "masked": to_255(masked),
            "coarse": to_255(predicted.coarse),
            "completed": composite(to_255(filled), batch["image"].astype(jnp.float32), mask),
        }
        if offsets:
            branch = sown["intermediates"]["refine"]["attention_branch"]
            (result["offsets"],) = branch["offsets"]
        return result

    everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    return jax.jit(
        inference_step,
        in_shardings=(everywhere, split),
        out_shardings=split,
        compiler_options=compiler.options(),
    )


def inputs(batch: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Selects the arrays of a pipeline batch that a step needs; a missing sketch becomes empty."""
    taken = {name: batch[name] for name in ("image", "mask")}
    if variant.guided:
        taken["sketch"] = batch.get("sketch", np.zeros_like(batch["mask"]))
    return taken


def baseline_complete(name: str) -> Complete:
    """Makes a `complete` of a classical baseline, which completes several images in parallel.

    Args:
        name: A key of `classical.BASELINES`.

    Raises:
        UsageError: There is no such baseline.
    """
    if name not in classical.BASELINES:
        valid = ", ".join(sorted(classical.BASELINES))
        raise UsageError(f"There is no baseline {name!r}; choose one of {valid}.")
    return _complete_each(lambda _, image, mask: classical.BASELINES[name](image, mask))


def folder_complete(path: str | Path) -> Complete:
    """Makes a `complete` of a folder of results of any program.

    The file name of a result is the index of its image in six digits, PNG or JPEG, as in the
    `completed` folder that `evaluate` writes. Results are scored as they are: changed known pixels,
    even those changed by JPEG compression, worsen the whole-image metrics.

    Raises:
        UsageError: `path` is not a folder. The returned function raises it if a result is missing,
            cannot be read, or differs from its image in size.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the folder that holds the results.")
    return _complete_each(lambda index, image, _: _read_result(folder, index, image.shape))


def _complete_each(fill: Callable[[int, np.ndarray, np.ndarray], np.ndarray]) -> Complete:
    """Makes a `complete` of a function of one index, image and mask; padding is not changed."""

    def complete(batch: Batch) -> dict[str, np.ndarray]:
        completed = batch["image"].astype(np.float32)
        rows = np.flatnonzero(batch["valid"])
        with futures.ThreadPoolExecutor() as pool:
            filled = pool.map(fill, *(batch[key][rows] for key in ("index", "image", "mask")))
            for row, picture in zip(rows, filled, strict=True):
                completed[row] = picture
        return {"completed": completed}

    return complete


def _read_result(folder: Path, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Reads the result for one image, uint8 [H, W, 3]."""
    png = folder / f"{index:06d}.png"
    path = next((p for p in map(png.with_suffix, _RESULT_SUFFIXES) if p.is_file()), None)
    if path is None:
        raise UsageError(f"{png} is missing; name results by their image's index, PNG or JPEG.")
    result = rgb.read(path)
    if result.shape != shape:
        raise UsageError(
            f"{path} has height and width {result.shape[:2]}, its image {shape[:2]}; evaluate at "
            "the size of the results (config.image_size)."
        )
    return result
