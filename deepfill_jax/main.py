"""Trains, evaluates, or looks for what is wrong, by a config.

python -m deepfill_jax.main --config=configs/places.py --workdir=DIR
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from deepfill_jax import config as config_keys
from deepfill_jax.errors import UsageError, run_command
from deepfill_jax.huge_pages import restart_with_huge_pages

FLAGS = flags.FLAGS

config_flags.DEFINE_config_file(
    "config", None, "A config file; --config.KEY=VALUE changes a value.", lock_config=True
)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where a run has several")
flags.DEFINE_integer("num_processes", None, "How many it has; srun and mpirun say so themselves")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0")
flags.DEFINE_string("workdir", None, "The run's folder: checkpoints, logs.")
flags.DEFINE_enum("mode", "train", ["train", "eval", "doctor"], "What to do.")
flags.DEFINE_string(
    "model", None, "eval: name or file of a model, instead of a checkpoint of the workdir"
)
flags.DEFINE_string("baseline", None, "eval: telea, navier_stokes, patchmatch, biharmonic or mean")
flags.DEFINE_string("results", None, "eval: a folder of results, named by the picture's index")
flags.DEFINE_integer("step", None, "eval: which checkpoint of the workdir")
flags.DEFINE_string(
    "output", None, "eval: where to write; default WORKDIR/eval/NAME, or REPORT/NAME"
)
flags.DEFINE_string("report", None, "eval: a folder for index.html, a page of the evaluation")
flags.DEFINE_list("beside", "telea,navier_stokes,mean", "eval: baselines that the page compares")


def main(argv: Sequence[str]) -> None:
    """Parses the command line and does what it says.

    Raises:
        UsageError: A flag or a config key is wrong, or a file is missing.
        FailedError: Training cannot go on, or the doctor found something wrong.
        StoppedError: Training was asked to stop.
    """
    config = _parse(argv)
    if FLAGS.mode != "eval" and not FLAGS.workdir:
        raise UsageError("--workdir is missing: the folder for checkpoints and logs.")
    # TensorFlow reads pictures here; what it says at its import helps nobody.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    from deepfill_jax import distributed

    if FLAGS.mode == "doctor":  # Of one machine, so it joins no others.
        from deepfill_jax.doctor import examination

        return examination.run(config, FLAGS.workdir)
    distributed.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    with distributed.leave_on_errors():
        distributed.check_same("The config", config.to_json())
        distributed.check_same("--workdir", f"{FLAGS.workdir}")
        if FLAGS.mode == "train":
            from deepfill_jax import train

            train.train(config, FLAGS.workdir)
        else:
            _evaluate(config)


def _parse(argv: Sequence[str]) -> ConfigDict:
    config_keys.check_overrides(argv[1:])
    try:
        rest = FLAGS(argv)[1:]
        if rest:
            raise UsageError(f"Unknown arguments {' '.join(rest)}; flags begin with --.")
        if FLAGS.config is None:
            raise UsageError("--config is missing, for example --config=configs/places.py.")
        config_keys.check(FLAGS.config)
    except UsageError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # Of what the config library says, with tracebacks of its own, the last line is for users.
        reason = str(error.args[0]).strip().splitlines()[-1].strip()
        raise UsageError(f"The command line cannot be used: {reason}") from error
    return FLAGS.config


def _evaluate(config: ConfigDict) -> None:
    import jax

    from deepfill_jax import assemble, completion, evaluate, sharding, weights
    from deepfill_jax.convert import run
    from deepfill_jax.models import Generator

    chosen = [name for name in ("model", "baseline", "results") if FLAGS[name].value]
    if len(chosen) > 1:
        raise UsageError(f"--{' and --'.join(chosen)} exclude one another.")
    mesh = sharding.make_mesh()
    assemble.check_sizes(config, mesh)
    model = None
    if FLAGS.baseline:
        name, complete = FLAGS.baseline, completion.baseline_complete(FLAGS.baseline)
    elif FLAGS.results:
        name, complete = "results", completion.folder_complete(FLAGS.results)
    elif FLAGS.model or FLAGS.workdir:
        model = (
            weights.load(FLAGS.model) if FLAGS.model else run.read(FLAGS.workdir, step=FLAGS.step)
        )
        name = Path(FLAGS.model).stem if FLAGS.model else f"step_{model.about['step']}"
        complete = completion.network_complete(Generator(model.variant), model.generator, mesh)
    else:
        raise UsageError("Evaluate what? Give --workdir, --model, --baseline or --results.")
    if not (FLAGS.output or FLAGS.report or FLAGS.workdir):
        raise UsageError("--output is missing: the folder for pictures and report.")
    folder = Path(FLAGS.report) if FLAGS.report else Path(FLAGS.workdir or "") / "eval"
    methods = {name: complete}
    for other in FLAGS.beside if FLAGS.report else ():
        methods.setdefault(other, completion.baseline_complete(other))
    folders = {method: folder / method for method in methods}
    folders[name] = Path(FLAGS.output or folders[name])
    start_batches, leader = assemble.validation_batches(config), jax.process_index() == 0
    # What was asked for comes last: it takes longest, and folders that are in use show before.
    for method in reversed(methods):
        report = evaluate.evaluate(methods[method], start_batches(), output=folders[method])
        if leader:
            print(f"{report.table()}\nPictures, grid.png and report.json: {folders[method]}")
    if FLAGS.report and leader:
        _write_page(config, folders, assemble.conditions(config, model))


def _write_page(config: ConfigDict, folders: dict[str, Path], conditions: dict[str, str]) -> None:
    from deepfill_jax import curves, evaluation_page, weights

    # One process makes the same page as several.
    alone = ("--coordinator=", "--num_processes=", "--process_id=")
    arguments = [shlex.quote(x) for x in sys.argv[1:] if not x.startswith(alone)]
    page = evaluation_page.render(
        folders,
        conditions=conditions,
        config=config.to_json(indent=2),
        command=" \\\n    ".join(["python -m deepfill_jax.main", *arguments]),
        curves=curves.read(FLAGS.workdir) if FLAGS.workdir else {},
    )
    path = Path(FLAGS.report) / "index.html"
    with weights.replacing(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    print(f"Page: {path}")


if __name__ == "__main__":
    restart_with_huge_pages()
    run_command(lambda: main(sys.argv))
