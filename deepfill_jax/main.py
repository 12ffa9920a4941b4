"""Trains a model, evaluates a method, or runs the pre-flight check, as `--mode` selects.

python -m deepfill_jax.main --config=places --workdir=DIR

`deepfill train`, `deepfill evaluate` and `deepfill doctor` are the same commands.
"""

import sys
from collections.abc import Sequence

from deepfill_jax.errors import run_command
from deepfill_jax.flags import FLAGS, parse, require_workdir
from deepfill_jax.huge_pages import restart_with_huge_pages


def main(argv: Sequence[str]) -> None:
    """Parses the command line, which starts with the program's name, and runs its command.

    Raises:
        UsageError: A flag or a config key is wrong, or a file is missing.
        RunError: Training cannot continue, or the doctor found something wrong.
        PreemptedError: A stop of the training was requested.
    """
    config = parse("main", argv[1:])
    # Imported here, so that errors on the command line are reported before these slow imports.
    if FLAGS.mode == "doctor":
        workdir = require_workdir()  # The check is of one machine, so no processes are joined.
        from deepfill_jax.doctor import examination

        examination.run(config, workdir)
    elif FLAGS.mode == "eval":
        from deepfill_jax.evaluate import command as evaluation

        evaluation.run(config, ["python -m deepfill_jax.main", *argv[1:]])
    else:
        workdir = require_workdir()
        from deepfill_jax.train.stop import exit_at_sigterm

        with exit_at_sigterm():
            from deepfill_jax.train import command as training

            training.run(config, workdir)


if __name__ == "__main__":
    restart_with_huge_pages()
    run_command(lambda: main(sys.argv))
