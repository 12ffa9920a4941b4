"""`deepfill doctor`: checks the machine, the data and the config before training.

It does the same as `python -m deepfill_jax.main --mode=doctor`, and has its own `--help`.
"""

import argparse
import sys
from collections.abc import Sequence

from deepfill_jax.errors import run_command
from deepfill_jax.huge_pages import restart_with_huge_pages


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all checks for the config on the command line; exits with 1 if one finds an error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        "deepfill doctor",
        description="Checks in about a minute whether a training run would work, and says how to "
        "fix what would not: devices, versions, images, masks, disk space, memory, speed, and "
        "whether the networks learn. The only file it writes is WORKDIR/doctor/batch.png.",
        epilog="exit codes: 0 no errors found, 1 errors found, 2 usage error",
        usage="%(prog)s --config=FILE [--config.KEY=VALUE ...] --workdir=DIR",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="config file of the run")
    parser.add_argument("--workdir", metavar="DIR", help="folder of the run, as for training")
    # argparse only handles --help here; `flags` reads the flags, as for training.
    parser.parse_known_args(arguments)
    restart_with_huge_pages()
    run_command(lambda: _examine(arguments))


def _examine(arguments: Sequence[str]) -> None:
    from deepfill_jax import flags

    config, workdir = flags.parse(["deepfill doctor", *arguments]), flags.require_workdir()
    # Imported here, so that errors on the command line are reported before the slow import of
    # TensorFlow.
    from deepfill_jax.doctor import examination

    examination.run(config, workdir)


if __name__ == "__main__":
    main()
