"""`deepfill train`: starts the training run of a config, or resumes the run in the folder.

It does the same as `python -m deepfill_jax.main`.
"""

import sys
from collections.abc import Sequence

from deepfill_jax.errors import run_command
from deepfill_jax.huge_pages import restart_with_huge_pages


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses a command line, `sys.argv[1:]` by default, and trains."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    run_command(lambda: _train(arguments))


def _train(arguments: Sequence[str]) -> None:
    from deepfill_jax import flags

    config, workdir = flags.parse("train", arguments), flags.require_workdir()
    restart_with_huge_pages()
    # Imported here, so that errors on the command line are reported before the slow import of
    # TensorFlow.
    from deepfill_jax.train.stop import exit_at_sigterm

    with exit_at_sigterm():
        from deepfill_jax.train import command

        command.run(config, workdir)


if __name__ == "__main__":
    main()
