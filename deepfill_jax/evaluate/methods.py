"""What `evaluate` scores: a network, a classical fill, a folder of anyone's results.

Each is a `complete`: it takes one batch of the data pipeline, a dict of numpy arrays: "image" uint8
[B, H, W, 3], "mask" uint8 [B, H, W, 1] with 1 in the hole, "valid" bool [B], False for padding, and
"index" int64 [B], the number of the picture in its data set; and for guided networks "sketch", like
"mask", 1 on the lines. It returns a dict, too: "completed", the completed pictures, [B, H, W, 3] in
0..255, and of a network what `make_inference_step` adds. With several processes, batches and
results are each process's own.
"""

from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deepfill_jax import compiler, sharding
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import baselines
from deepfill_jax.image import composite, floats, mask_out, to_255
from deepfill_jax.models import Generator, Variant
from deepfill_jax.pictures import rgb

Batch = dict[str, np.ndarray]
Complete = Callable[[Batch], dict[str, np.ndarray]]

_RESULT_SUFFIXES = (".png", ".jpg", ".jpeg")


def network_complete(generator: Generator, params: Any, mesh: Mesh) -> Complete:
    """Makes a `complete` of a generator; batches must split evenly over the mesh."""
    infer = make_inference_step(generator, mesh, offsets=True)
    params = jax.device_put(params, sharding.replicated(mesh))

    def complete(batch: Batch) -> dict[str, np.ndarray]:
        pictures = inputs(batch, generator.variant)
        result = infer(params, sharding.shard_batch(pictures, mesh))
        return {name: sharding.local_rows(rows) for name, rows in result.items()}

    return complete


def make_inference_step(
    generator: Generator, mesh: Mesh, *, offsets: bool = False
) -> Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """Makes (params, batch) -> {"masked", "coarse", "completed"}, float32 in 0..255, [B, H, W, 3].

    The batch is as the training step's. Known pixels of "completed" are the image's, exactly. With
    `offsets`, those of the attention are there too, see `attention.Attention`.
    """

    def inference_step(params, batch):
        image, mask, sketch = floats(batch)
        masked = mask_out(image, mask)
        predicted, sown = generator.apply(
            {"params": params}, masked, mask, sketch, mutable=["intermediates"]
        )
        result = {
            "masked": to_255(masked),
            "coarse": to_255(predicted.coarse),
            "completed": composite(
                to_255(predicted.refined), batch["image"].astype(jnp.float32), mask
            ),
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
    """What a step takes of a batch of the data pipeline; without sketches, all are empty."""
    taken = {name: batch[name] for name in ("image", "mask")}
    if variant.guided:
        taken["sketch"] = batch.get("sketch", np.zeros_like(batch["mask"]))
    return taken


def baseline_complete(name: str) -> Complete:
    """Makes a `complete` of a classical fill, several pictures at a time.

    Args:
        name: A key of `baselines.BASELINES`.

    Raises:
        UsageError: There is no such fill.
    """
    if name not in baselines.BASELINES:
        valid = ", ".join(sorted(baselines.BASELINES))
        raise UsageError(f"There is no baseline {name!r}; choose one of {valid}.")
    return _complete_each(lambda _, image, mask: baselines.BASELINES[name](image, mask))


def folder_complete(path: str | Path) -> Complete:
    """Makes a `complete` of a folder of results, whoever made them.

    A result is named by the six digits of its picture's index, PNG or JPEG, as in the `completed`
    folder that `evaluate` writes. It is scored as it is: whoever changed known pixels, be it by
    JPEG, pays for it in the whole-image metrics.

    Raises:
        UsageError: `path` is not a folder; or, later, a result is missing, unreadable or of another
            size than its picture.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the folder that holds the results.")
    return _complete_each(lambda index, image, _: _read_result(folder, index, image.shape))


def _complete_each(fill: Callable[[int, np.ndarray, np.ndarray], np.ndarray]) -> Complete:
    """Makes a `complete` of a function of one index, image and mask. Padding is left as it is."""

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
    """Reads the result of one picture, uint8 [H, W, 3]."""
    png = folder / f"{index:06d}.png"
    path = next((p for p in map(png.with_suffix, _RESULT_SUFFIXES) if p.is_file()), None)
    if path is None:
        raise UsageError(f"{png} is missing; name results by their picture's index, PNG or JPEG.")
    result = rgb.read(path)
    if result.shape != shape:
        raise UsageError(
            f"{path} has height and width {result.shape[:2]}, its picture {shape[:2]}; evaluate at "
            "the size of the results (config.image_size)."
        )
    return result
