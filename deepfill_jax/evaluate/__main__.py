"""`deepfill evaluate`: scores a method on the validation images of a config.

It does the same as `python -m deepfill_jax.main --mode=eval`.
"""

import sys
from collections.abc import Sequence

from deepfill_jax.errors import run_command
from deepfill_jax.huge_pages import restart_with_huge_pages


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses a command line, `sys.argv[1:]` by default, and runs the evaluation."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    run_command(lambda: _evaluate(arguments))


def _evaluate(arguments: Sequence[str]) -> None:
    from deepfill_jax import flags

    config = flags.parse("evaluate", arguments)
    restart_with_huge_pages()
    # Imported here, so that errors on the command line are reported before the slow import of
    # TensorFlow.
    from deepfill_jax.evaluate import command

    command.run(config, ["deepfill evaluate", *arguments])


if __name__ == "__main__":
    main()
