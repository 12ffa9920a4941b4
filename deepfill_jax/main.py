"""Trains, evaluates, or looks for what is wrong, by a config.

python -m deepfill_jax.main --config=configs/places.py --workdir=DIR
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.errors import UsageError, run_command
from deepfill_jax.flags import FLAGS, parse, require_workdir
from deepfill_jax.huge_pages import restart_with_huge_pages


def main(argv: Sequence[str]) -> None:
    """Parses the command line and does what it says.

    Raises:
        UsageError: A flag or a config key is wrong, or a file is missing.
        FailedError: Training cannot go on, or the doctor found something wrong.
        StoppedError: Training was asked to stop.
    """
    config = parse(argv)
    if FLAGS.mode != "eval":
        require_workdir()
    from deepfill_jax import distributed

    if FLAGS.mode == "doctor":  # Of one machine, so it joins no others.
        from deepfill_jax.doctor import examination

        return examination.run(config, FLAGS.workdir)
    distributed.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    with distributed.leave_on_errors():
        distributed.check_same("The config", config.to_json())
        distributed.check_same("--workdir", f"{FLAGS.workdir}")
        if FLAGS.mode == "train":
            from deepfill_jax.train import loop

            loop.train(config, FLAGS.workdir)
        else:
            _evaluate(config)


def _evaluate(config: ConfigDict) -> None:
    import jax

    from deepfill_jax import sharding, weights
    from deepfill_jax.convert import run
    from deepfill_jax.evaluate import scoring
    from deepfill_jax.evaluate.methods import baseline_complete, folder_complete, network_complete
    from deepfill_jax.models import Generator
    from deepfill_jax.train import build

    chosen = [name for name in ("model", "baseline", "results") if FLAGS[name].value]
    if len(chosen) > 1:
        raise UsageError(f"--{' and --'.join(chosen)} exclude one another.")
    mesh = sharding.make_mesh()
    build.check_sizes(config, mesh)
    model = None
    if FLAGS.baseline:
        name, complete = FLAGS.baseline, baseline_complete(FLAGS.baseline)
    elif FLAGS.results:
        name, complete = "results", folder_complete(FLAGS.results)
    elif FLAGS.model or FLAGS.workdir:
        model = (
            weights.load(FLAGS.model) if FLAGS.model else run.read(FLAGS.workdir, step=FLAGS.step)
        )
        name = Path(FLAGS.model).stem if FLAGS.model else f"step_{model.about['step']}"
        complete = network_complete(Generator(model.variant), model.generator, mesh)
    else:
        raise UsageError("Evaluate what? Give --workdir, --model, --baseline or --results.")
    if not (FLAGS.output or FLAGS.report or FLAGS.workdir):
        raise UsageError("--output is missing: the folder for pictures and report.")
    folder = Path(FLAGS.report) if FLAGS.report else Path(FLAGS.workdir or "") / "eval"
    methods = {name: complete}
    for other in FLAGS.beside if FLAGS.report else ():
        methods.setdefault(other, baseline_complete(other))
    folders = {method: folder / method for method in methods}
    folders[name] = Path(FLAGS.output or folders[name])
    start_batches, leader = build.validation_batches(config), jax.process_index() == 0
    # What was asked for comes last: it takes longest, and folders that are in use show before.
    for method in reversed(methods):
        report = scoring.evaluate(methods[method], start_batches(), output=folders[method])
        if leader:
            print(f"{report.table()}\nPictures, grid.png and report.json: {folders[method]}")
    if FLAGS.report and leader:
        _write_page(config, folders, build.conditions(config, model))


def _write_page(config: ConfigDict, folders: dict[str, Path], conditions: dict[str, str]) -> None:
    from deepfill_jax.evaluate import event_files, html_report

    # One process makes the same page as several.
    alone = ("--coordinator=", "--num_processes=", "--process_id=")
    arguments = [shlex.quote(x) for x in sys.argv[1:] if not x.startswith(alone)]
    page = html_report.render(
        folders,
        conditions=conditions,
        config=config.to_json(indent=2),
        command=" \\\n    ".join(["python -m deepfill_jax.main", *arguments]),
        curves=event_files.read(FLAGS.workdir) if FLAGS.workdir else {},
    )
    path = Path(FLAGS.report) / "index.html"
    with atomic_write(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    print(f"Page: {path}")


if __name__ == "__main__":
    restart_with_huge_pages()
    run_command(lambda: main(sys.argv))
