"""Trains, evaluates, or looks for what is wrong, by a config.

python -m deepfill_jax.main --config=configs/places.py --workdir=DIR
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from deepfill_jax.errors import run_command
from deepfill_jax.flags import FLAGS, parse, require_workdir
from deepfill_jax.huge_pages import restart_with_huge_pages


def main(argv: Sequence[str]) -> None:
    """Parses the command line and does what it says.

    Raises:
        UsageError: A flag or a config key is wrong, or a file is missing.
        RunError: Training cannot continue, or the doctor found something wrong.
        PreemptedError: Training was asked to stop.
    """
    config = parse(argv)
    if FLAGS.mode != "eval":
        require_workdir()
    from deepfill_jax import distributed

    if FLAGS.mode == "doctor":  # Of one machine, so it joins no others.
        from deepfill_jax.doctor import examination

        return examination.run(config, FLAGS.workdir)
    distributed.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    with distributed.abort_on_error():
        distributed.assert_same_on_all_processes("The config", config.to_json())
        distributed.assert_same_on_all_processes("--workdir", f"{FLAGS.workdir}")
        if FLAGS.mode == "train":
            from deepfill_jax.train import loop

            loop.train(config, FLAGS.workdir, start_over=FLAGS.start_over)
        else:
            _evaluate(config)


def _evaluate(config: ConfigDict) -> None:
    import jax

    from deepfill_jax import sharding
    from deepfill_jax.convert import run
    from deepfill_jax.data import streams
    from deepfill_jax.evaluate import command
    from deepfill_jax.train import build, captions

    mesh = sharding.make_mesh()
    build.check_sizes(config, mesh)
    method = command.choose_method(
        mesh,
        model=FLAGS.model,
        baseline=FLAGS.baseline,
        predictions=FLAGS.predictions,
        workdir=FLAGS.workdir,
        step=run.parse_step(FLAGS.step),
    )
    folders = command.output_folders(
        method.name,
        FLAGS.compare if FLAGS.report else (),
        output=FLAGS.output,
        report=FLAGS.report,
        workdir=FLAGS.workdir,
    )
    command.score(method, folders, streams.validation_batches(config))
    if FLAGS.report and jax.process_index() == 0:
        from deepfill_jax.evaluate import event_files

        command.write_report(
            Path(FLAGS.report),
            folders,
            conditions=captions.conditions(config, method.model),
            config=config.to_json(indent=2),
            arguments=sys.argv[1:],
            curves=event_files.read(FLAGS.workdir) if FLAGS.workdir else {},
        )


if __name__ == "__main__":
    restart_with_huge_pages()
    run_command(lambda: main(sys.argv))
