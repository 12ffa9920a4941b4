"""`deepfill doctor`: checks the machine, the data and the config before training.

It does the same as `python -m deepfill_jax.main --mode=doctor`.
"""

import sys
from collections.abc import Sequence

from deepfill_jax.errors import run_command
from deepfill_jax.huge_pages import restart_with_huge_pages


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all checks for the config on the command line; exits with 1 if one finds an error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    run_command(lambda: _examine(arguments))


def _examine(arguments: Sequence[str]) -> None:
    from deepfill_jax import flags

    config, workdir = flags.parse("doctor", arguments), flags.require_workdir()
    restart_with_huge_pages()
    # Imported here, so that errors on the command line are reported before the slow import of
    # TensorFlow.
    from deepfill_jax.doctor import examination

    examination.run(config, workdir)


if __name__ == "__main__":
    main()
