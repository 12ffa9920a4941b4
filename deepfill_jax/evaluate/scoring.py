"""Scores a method, and writes its images and scores, also for the metrics of other tools."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import metrics, visualization
from deepfill_jax.evaluate.methods import Batch, Complete
from deepfill_jax.image import composite
from deepfill_jax.inpaint import classical
from deepfill_jax.local_paths import require_local

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, jax.Array]]

_AREAS = np.arange(1, 7) / 10  # Limits between the buckets of the hole's area, in 0..1.
_GRID_ROWS = 8
REPORT = "report.json"


@dataclasses.dataclass(frozen=True)
class Report:
    """The metrics of each image, in the order of the images' index.

    Attributes:
        index: Indices of the images in their data set, int [N].
        values: Values of each metric, float [N], by its name in `metrics.measure`.
    """

    index: np.ndarray
    values: dict[str, np.ndarray]

    def summary(self) -> dict[str, dict[str, float]]:
        """Computes mean, standard error of the mean, and count of every metric, by its name.

        An exact copy, such as the result for an image without a hole, has an infinite PSNR. The
        mean and the count omit infinite values, but not NaN.
        """
        return {name: _statistics(values) for name, values in self.values.items()}

    def by_area(self) -> list[dict[str, float | str]]:
        """Returns a row for each range of the hole's area in which there are images.

        A row has "area", the range in percent such as "10-20", "count", and the mean of each
        metric.
        """
        buckets = np.searchsorted(_AREAS, self.values["hole_area"], side="right")
        rows: list[dict[str, float | str]] = []
        for bucket in np.unique(buckets):
            chosen = buckets == bucket
            area = "60+" if bucket == len(_AREAS) else f"{10 * bucket}-{10 * bucket + 10}"
            means = {k: _statistics(v[chosen])["mean"] for k, v in self.values.items()}
            rows.append({"area": area, "count": int(chosen.sum()), **means})
        return rows

    def table(self) -> str:
        """Formats means, standard errors and the rows of `by_area` as text in columns."""
        summary = self.summary()
        lines = [_line("", "images", *summary)]
        for key, label in (("mean", "mean"), ("standard_error", "standard error")):
            lines.append(_line(label, len(self.index), *(summary[name][key] for name in summary)))
        for row in self.by_area():
            label = f"hole {row['area']} %"
            lines.append(_line(label, row["count"], *(row[name] for name in summary)))
        return "\n".join(lines)

    def as_json(self) -> str:
        """Formats summary, `by_area` and the values of every image; non-finite values are null."""
        pictures = {"index": self.index.tolist()}
        pictures |= {name: values.tolist() for name, values in self.values.items()}
        whole = {"summary": self.summary(), "by_area": self.by_area(), "pictures": pictures}
        # JSON can represent neither infinity nor NaN.
        finite = jax.tree.map(lambda x: x if isinstance(x, str) or np.isfinite(x) else None, whole)
        return json.dumps(finite, indent=1, allow_nan=False)


def score(
    complete: Complete,
    batches: Iterable[Batch],
    *,
    output: str | Path | None = None,
    measure: Measure = metrics.measure,
) -> Report:
    """Computes the metrics of every image that is not padding.

    Args:
        complete: See methods.py. Its results are scored as they are: neither rounded nor
            composited again.
        batches: Batches of equal size, the same number in each process.
        output: Folder for images and scores, shared by the processes. It receives PNG files of the
            same names in `image`, `mask` (255 in the hole) and `completed`, which FID and LPIPS
            tools can read; for a network also in `coarse` and `attention`, see
            `visualization.offset_map`; `report.json`; and `grid.png`, the first eight examples as
            masked image, completed image and ground truth.
        measure: Computes metrics, float [B] by name, from completed images, ground truth and masks,
            see metrics.py. "hole_area" must be one of them.

    Returns:
        The report on the images of all processes.

    Raises:
        UsageError: There is no image, or `output` already contains images or cannot be created.
    """
    folder = None if output is None else _create_output(Path(output))
    measured: list[dict[str, np.ndarray]] = []
    samples: list[np.ndarray] = []
    for batch in batches:
        result = complete(batch)
        completed = np.asarray(result["completed"], np.float32)
        assert completed.shape == batch["image"].shape, completed.shape
        values = measure(completed, batch["image"], batch["mask"])
        measured.append(
            {"index": batch["index"], "valid": batch["valid"], **jax.device_get(values)}
        )
        if folder is not None:
            samples = [*samples, *_write_pictures(folder, batch, result)][:_GRID_ROWS]
    report = _gather(measured)
    if folder is not None and jax.process_index() == 0:
        (folder / REPORT).write_text(report.as_json() + "\n")
        if samples:
            _write_png(folder / "grid.png", sample_grid(list(np.stack(samples, axis=1))))
    return report


def sample_grid(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Arranges images in a grid with an example per row.

    Args:
        columns: n arrays, each uint8 [B, H, W, 3].

    Returns:
        The grid, uint8 [B * H, n * W, 3].
    """
    return np.concatenate(np.concatenate(columns, axis=2), axis=0)


def _statistics(values: np.ndarray) -> dict[str, float]:
    values = values[values != np.inf].astype(np.float64)
    count = len(values)
    return {
        "mean": float(values.mean()) if count else np.nan,
        "standard_error": float(values.std(ddof=1) / count**0.5) if count > 1 else np.nan,
        "count": count,
    }


def _line(label: str, *cells: str | float) -> str:
    texts = (f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells)
    return f"{label:<16}" + "".join(f"{text:>10}" for text in texts)


def _gather(measured: list[dict[str, np.ndarray]]) -> Report:
    """Joins the batches of all processes, without padding."""
    if measured:
        own = {key: np.concatenate([batch[key] for batch in measured]) for key in measured[0]}
        # Padding is removed afterwards, because all processes must contribute the same shapes.
        values = multihost_utils.process_allgather(own, tiled=True)
        valid = np.flatnonzero(values.pop("valid"))
        order = valid[np.argsort(values["index"][valid], kind="stable")]
        if len(order):
            return Report(values.pop("index")[order], {k: v[order] for k, v in values.items()})
    raise UsageError("There is no image to evaluate; check config.data.val_source.")


def _create_output(folder: Path) -> Path:
    """Creates the folder; no process writes to it before all have checked that it is empty."""
    require_local("output", folder)
    for name in ("image", "mask", "completed", "coarse", "attention"):
        if (folder / name).is_dir() and any((folder / name).iterdir()):
            # FID tools would include the files of an earlier run.
            raise UsageError(f"{folder / name} contains files; give another folder or delete it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be created: {error.strerror}.") from error
    multihost_utils.sync_global_devices("output folders")
    return folder


def _write_pictures(folder: Path, batch: Batch, result: Mapping[str, np.ndarray]) -> np.ndarray:
    """Writes the images that are not padding.

    Returns:
        Masked image, completed image and ground truth of each, uint8 [V, 3, H, W, 3].
    """
    image, mask = batch["image"][batch["valid"]], batch["mask"][batch["valid"]]
    result = {name: rows[batch["valid"]] for name, rows in result.items()}
    pictures = {"image": image, "mask": 255 * mask[..., 0]}
    for kind in ("completed", "coarse"):
        if kind in result:
            pictures[kind] = np.clip(np.rint(result[kind]), 0, 255).astype(np.uint8)
    if "offsets" in result:
        pictures["attention"] = visualization.offset_map(result["offsets"], image, mask)
    with futures.ThreadPoolExecutor() as pool:  # PNG compression takes most of the time.
        for kind, arrays in pictures.items():
            (folder / kind).mkdir(exist_ok=True)
            paths = [folder / kind / f"{index:06d}.png" for index in batch["index"][batch["valid"]]]
            list(pool.map(_write_png, paths, arrays))
    masked = composite(classical.MID_GREY, image, mask)  # The generator's input.
    return np.stack([masked, pictures["completed"], image], axis=1)


def _write_png(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)
