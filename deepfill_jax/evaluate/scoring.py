"""Scores whatever completes pictures, and writes what others need to score it again."""

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
from deepfill_jax.evaluate import baselines, metrics, visualization
from deepfill_jax.evaluate.methods import Batch, Complete
from deepfill_jax.image import composite

Measure = Callable[[jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]

_AREAS = np.arange(1, 7) / 10  # Where the buckets of the hole's area meet.
_GRID_ROWS = 8
REPORT = "report.json"


@dataclasses.dataclass(frozen=True)
class Report:
    """What `score` measured, picture by picture, in the order of their index.

    Attributes:
        index: [N] numbers of the pictures.
        values: Float [N] of each metric, by its name in `metrics.measure`.
    """

    index: np.ndarray
    values: dict[str, np.ndarray]

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean, standard error of the mean and count of every metric, by its name.

        An exact copy, such as a picture without a hole, has infinite PSNR. It is left out of that
        mean and that count. NaN is never left out.
        """
        return {name: _statistics(values) for name, values in self.values.items()}

    def by_area(self) -> list[dict[str, float | str]]:
        """A row for each bucket of the hole's area that holds pictures.

        Its "area" is in percent, such as "10-20"; beside it "count" and the mean of each metric.
        """
        buckets = np.searchsorted(_AREAS, self.values["hole_area"], side="right")
        rows = []
        for bucket in np.unique(buckets):
            chosen = buckets == bucket
            area = "60+" if bucket == len(_AREAS) else f"{10 * bucket}-{10 * bucket + 10}"
            means = {k: _statistics(v[chosen])["mean"] for k, v in self.values.items()}
            rows.append({"area": area, "count": int(chosen.sum()), **means})
        return rows

    def table(self) -> str:
        """Mean, standard error and buckets as text in columns."""
        summary = self.summary()
        lines = [_line("", "pictures", *summary)]
        for key, label in (("mean", "mean"), ("standard_error", "standard error")):
            lines.append(_line(label, len(self.index), *(summary[name][key] for name in summary)))
        for row in self.by_area():
            label = f"hole {row['area']} %"
            lines.append(_line(label, row["count"], *(row[name] for name in summary)))
        return "\n".join(lines)

    def as_json(self) -> str:
        """Summary, buckets and every picture's values; null where a value is not finite."""
        pictures = {"index": self.index.tolist()}
        pictures |= {name: values.tolist() for name, values in self.values.items()}
        whole = {"summary": self.summary(), "by_area": self.by_area(), "pictures": pictures}
        # JSON has no word for infinity and NaN.
        finite = jax.tree.map(lambda x: x if isinstance(x, str) or np.isfinite(x) else None, whole)
        return json.dumps(finite, indent=1, allow_nan=False)


def score(
    complete: Complete,
    batches: Iterable[Batch],
    *,
    output: str | Path | None = None,
    measure: Measure = metrics.measure,
) -> Report:
    """Measures every picture that is not padding.

    Args:
        complete: See methods.py. Its pictures are scored as they are: not rounded, and not
            composited again.
        batches: Batches, all of one size, and equally many for each process.
        output: A folder, shared by the processes, for the pictures: PNG files of the same names in
            `image`, `mask` (255 in the hole) and `completed`, as FID and LPIPS tools want them;
            of a network also in `coarse` and `attention`, see `visualization.offset_map`; for
            `report.json`; for `grid.png`, the first eight as masked, completed and truth.
        measure: Makes [B, ...] arrays by name of completed pictures, truth and mask, see
            metrics.py. "hole_area" must be among them.

    Returns:
        The report on the pictures of all processes.

    Raises:
        UsageError: There is no picture, or `output` already holds some or cannot be a folder.
    """
    folder = None if output is None else _create_output(Path(output))
    measured, samples = [], []
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
            _write_png(folder / "grid.png", sample_grid(np.stack(samples, axis=1)))
    return report


def sample_grid(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Lays pictures out, an example a row: n columns of uint8 [B, H, W, 3] -> [B * H, n * W, 3]."""
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
    """Joins the batches of all processes, without the padding."""
    if measured:
        own = {key: np.concatenate([batch[key] for batch in measured]) for key in measured[0]}
        # Padding and all, because each process must hand in the same shapes.
        values = multihost_utils.process_allgather(own, tiled=True)
        valid = np.flatnonzero(values.pop("valid"))
        order = valid[np.argsort(values["index"][valid], kind="stable")]
        if len(order):
            return Report(values.pop("index")[order], {k: v[order] for k, v in values.items()})
    raise UsageError("There is no picture to evaluate; check config.data.val_source.")


def _create_output(folder: Path) -> Path:
    """Makes the folder, and has every process see it before any writes."""
    for name in ("image", "mask", "completed", "coarse", "attention"):
        if (folder / name).is_dir() and any((folder / name).iterdir()):
            # FID tools would count what an earlier run left.
            raise UsageError(f"{folder / name} holds files; name another folder or delete it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made a folder: {error.strerror}.") from error
    multihost_utils.sync_global_devices("output folders")
    return folder


def _write_pictures(folder: Path, batch: Batch, result: Mapping[str, np.ndarray]) -> np.ndarray:
    """Writes the pictures that are not padding, and returns their samples, [V, 3, H, W, 3]."""
    image, mask = batch["image"][batch["valid"]], batch["mask"][batch["valid"]]
    result = {name: rows[batch["valid"]] for name, rows in result.items()}
    pictures = {"image": image, "mask": 255 * mask[..., 0]}
    for kind in ("completed", "coarse"):
        if kind in result:
            pictures[kind] = np.clip(np.rint(result[kind]), 0, 255).astype(np.uint8)
    if "offsets" in result:
        pictures["attention"] = visualization.offset_map(result["offsets"], image, mask)
    with futures.ThreadPoolExecutor() as pool:  # Deflating is what takes the time.
        for kind, arrays in pictures.items():
            (folder / kind).mkdir(exist_ok=True)
            paths = [folder / kind / f"{index:06d}.png" for index in batch["index"][batch["valid"]]]
            list(pool.map(_write_png, paths, arrays))
    masked = np.asarray(composite(baselines.MID_GREY, image, mask))  # As the generator sees it.
    return np.stack([masked, pictures["completed"], image], axis=1)


def _write_png(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)
