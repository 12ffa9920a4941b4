"""The evaluation command: scores one method, baselines on the same holes, and writes the report."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from deepfill_jax import weights
from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert import run
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import html_report, scoring
from deepfill_jax.evaluate.methods import (
    Batch,
    Complete,
    baseline_complete,
    folder_complete,
    network_complete,
)
from deepfill_jax.evaluate.svg_charts import Curve
from deepfill_jax.models import Generator


class Method(NamedTuple):
    """What is evaluated."""

    name: str
    complete: Complete
    model: weights.Model | None = None  # None: it is not a network.


def choose_method(
    mesh: Mesh,
    *,
    model: str | None = None,
    baseline: str | None = None,
    predictions: str | None = None,
    workdir: str | None = None,
    step: int | str | None = None,
) -> Method:
    """Loads what the command line names; see the flags of the same names.

    Raises:
        UsageError: Nothing is named or several methods are, or the one that is cannot be used.
    """
    named = {"model": model, "baseline": baseline, "predictions": predictions}
    chosen = [name for name, value in named.items() if value]
    if len(chosen) > 1:
        raise UsageError(f"--{' and --'.join(chosen)} exclude one another.")
    if baseline:
        return Method(baseline, baseline_complete(baseline))
    if predictions:
        return Method("predictions", folder_complete(predictions))
    if not (model or workdir):
        raise UsageError("Evaluate what? Give --workdir, --model, --baseline or --predictions.")
    loaded = weights.load(model) if model else run.read(workdir, step=step)
    name = Path(model).stem if model else f"step_{loaded.metadata['step']}"
    complete = network_complete(Generator(loaded.variant), loaded.generator, mesh)
    return Method(name, complete, loaded)


def output_folders(
    name: str,
    baselines: Iterable[str],
    *,
    output: str | None,
    report: str | None,
    workdir: str | None,
) -> dict[str, Path]:
    """The folder of each method's pictures and scores, the method `name` first.

    Raises:
        UsageError: No flag says where to write.
    """
    if not (output or report or workdir):
        raise UsageError("--output is missing: the folder for pictures and report.")
    folder = Path(report) if report else Path(workdir or "") / "eval"
    folders = {method: folder / method for method in (name, *baselines)}
    return folders | {name: Path(output or folders[name])}


def score(
    method: Method,
    folders: Mapping[str, Path],
    start_batches: Callable[[], Iterable[Batch]],
) -> None:
    """Scores a method and the baselines that have a folder, and prints tables.

    Raises:
        UsageError: A baseline does not exist, or see `scoring.evaluate`.
    """
    methods = {
        name: method.complete if name == method.name else baseline_complete(name)
        for name in folders
    }
    # What was asked for comes last: it takes longest, and folders that are in use show before.
    for name in reversed(methods):
        report = scoring.evaluate(methods[name], start_batches(), output=folders[name])
        if jax.process_index() == 0:
            print(f"{report.table()}\nPictures, grid.png and report.json: {folders[name]}")


def write_report(
    folder: Path,
    folders: Mapping[str, Path],
    *,
    conditions: Mapping[str, str],
    config: str,
    arguments: Sequence[str],
    curves: Mapping[str, Curve],
) -> None:
    """Writes `index.html` from the folders that `score` filled.

    Args:
        folder: Where to write it.
        folders: See `html_report.render`.
        conditions: See `html_report.render`.
        config: See `html_report.render`.
        arguments: Of `python -m deepfill_jax.main`; they make the page again.
        curves: See `html_report.render`.

    Raises:
        UsageError: The page cannot be made or written.
    """
    # One process makes the same page as several.
    alone = ("--coordinator=", "--num_processes=", "--process_id=")
    quoted = [shlex.quote(x) for x in arguments if not x.startswith(alone)]
    page = html_report.render(
        folders,
        conditions=conditions,
        config=config,
        command=" \\\n    ".join(["python -m deepfill_jax.main", *quoted]),
        curves=curves,
    )
    with atomic_write(folder / "index.html") as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    print(f"Page: {folder / 'index.html'}")
