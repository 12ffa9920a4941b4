"""The body of `deepfill evaluate`: scores a method and baselines, and writes the report."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax import compile_cache, flags, sharding
from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert.run import parse_step, read_config
from deepfill_jax.data import streams
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import (
    captions,
    evaluation,
    event_files,
    html_report,
    methods,
    scoring,
)
from deepfill_jax.evaluate.svg_charts import Curve


def run(config: ConfigDict, words: Sequence[str]) -> None:
    """Evaluates the method that the flags name, jointly with the run's other processes.

    Prints the tables of scores.

    Args:
        config: See `evaluation.evaluate`.
        words: Program and arguments of the command line, for the report.

    Raises:
        UsageError: A flag, the config, the data or a method cannot be used.
    """
    values = flags.FLAGS
    with flags.joined_processes(config):
        compile_cache.enable()
        mesh = sharding.make_mesh()
        evaluation.check_sizes(config, mesh)
        method = choose_method(
            mesh,
            model=values.model,
            baseline=values.baseline,
            predictions=values.predictions,
            workdir=values.workdir,
            step=parse_step(values.step),
            seamless=config.eval.seamless,
        )
        folders = output_folders(
            method.name,
            values.compare if values.report else (),
            output=values.output,
            report=values.report,
        )
        scores = Path(values.workdir, "eval") if values.workdir else None
        score(config, method, folders, scores)
        if values.report and jax.process_index() == 0:
            write_report(
                Path(values.report),
                {name: folder for name, folder in folders.items() if folder},
                conditions=captions.conditions(config, method.model),
                config=config.to_json(indent=2),
                words=words,
                curves=event_files.read(values.workdir) if values.workdir else {},
            )


def choose_method(
    mesh: Mesh,
    *,
    model: str | None = None,
    baseline: str | None = None,
    predictions: str | None = None,
    workdir: str | None = None,
    step: int | str | None = None,
    seamless: bool = False,
) -> methods.Method:
    """Loads the method that the command line names; see the flags of the same names.

    `seamless` is that of `methods.make_inference_step`.

    Raises:
        UsageError: No method or several methods are named, or the method cannot be used.
        RunError: A run's checkpoint cannot be read now.
    """
    named = {"model": model, "baseline": baseline, "predictions": predictions}
    chosen = [name for name, value in named.items() if value]
    if len(chosen) > 1:
        raise UsageError(f"--{' and --'.join(chosen)} exclude each other; give one of them.")
    if step is not None and (baseline or predictions):
        raise UsageError(f"--step selects a checkpoint of a run; --{chosen[0]} has none.")
    if baseline:
        return methods.load_baseline(baseline)
    if predictions:
        return methods.load_predictions(predictions)
    if model:
        return methods.load_network(model, mesh, step=step, seamless=seamless)
    if workdir:
        read_config(workdir)  # Raises an error that names the folder if it contains no run.
        # A relative path such as "scenes" would be the name of a bundled model.
        run = Path(workdir).absolute()
        return methods.load_network(run, mesh, step=step, seamless=seamless)
    raise UsageError(
        "The method to evaluate is missing. Give --workdir, --model, --baseline or --predictions."
    )


def output_folders(
    name: str, baselines: Iterable[str], *, output: str | None, report: str | None
) -> dict[str, Path | None]:
    """Returns the folder for each method's images and scores, the method `name` first.

    None means that no images are written.
    """
    folders = {method: Path(report) / method for method in (name, *baselines)} if report else {}
    return {name: None} | folders | ({name: Path(output)} if output else {})


def score(
    config: ConfigDict,
    method: methods.Method,
    folders: Mapping[str, Path | None],
    scores: Path | None = None,
) -> None:
    """Scores a method and the baselines that have a folder, and prints tables.

    Args:
        config: See `evaluation.evaluate`.
        method: The method.
        folders: See `output_folders`.
        scores: Where NAME/report.json is written for a method without a folder; None for nowhere.

    Raises:
        UsageError: A baseline does not exist, or see `evaluation.evaluate`.
        RunError: See `evaluation.evaluate`.
    """
    chosen = [method, *(methods.load_baseline(name) for name in folders if name != method.name)]
    source = streams.open_source(config, validation=True)
    # The method comes last because it takes longest; unusable output folders fail before it.
    for scored in reversed(chosen):
        folder = folders[scored.name]
        report = evaluation.evaluate(config, scored, source=source, output=folder)
        if jax.process_index() != 0:
            continue
        print(f"{scored.name} on {config.data.val_source}, holes: {captions.holes(config)}")
        print(report.table())
        if folder:
            print(f"Images, grid.png and {scoring.REPORT}: {folder}")
        elif scores:
            path = scores / scored.name / scoring.REPORT
            with atomic_write(path) as unfinished:
                unfinished.write_text(report.as_json() + "\n")
            print(f"Scores: {path}. --output=DIR writes the images too.")


def write_report(
    folder: Path,
    folders: Mapping[str, Path],
    *,
    conditions: Mapping[str, str],
    config: str,
    words: Sequence[str],
    curves: Mapping[str, Curve],
) -> None:
    """Writes `index.html`, the HTML report, from the folders that `score` wrote.

    Args:
        folder: Where to write it.
        folders: See `html_report.render`.
        conditions: See `html_report.render`.
        config: See `html_report.render`.
        words: See `run`.
        curves: See `html_report.render`.

    Raises:
        UsageError: The report cannot be rendered or written.
    """
    # The flags of multi-process runs are omitted, because one process writes the same report.
    processes = ("--coordinator=", "--num_processes=", "--process_id=")
    program, *arguments = words
    quoted = [shlex.quote(x) for x in arguments if not x.startswith(processes)]
    page = html_report.render(
        folders,
        conditions=conditions,
        config=config,
        command=" \\\n    ".join([program, *quoted]),
        curves=curves,
    )
    with atomic_write(folder / "index.html") as unfinished:
        unfinished.write_text(page, encoding="utf-8", errors="backslashreplace")
    print(f"Report: {folder / 'index.html'}")
