"""`deepfill doctor`: checks a machine, its data and a config before a training.

It is `python -m deepfill_jax.main --mode=doctor`, with help of its own.
"""

import argparse
import sys
from collections.abc import Sequence

from deepfill_jax.errors import run_command
from deepfill_jax.huge_pages import restart_with_huge_pages


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, examines, and exits with 1 if something is wrong."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        "deepfill doctor",
        description="Finds in about a minute what would go wrong in a training, and says what to "
        "do: devices, versions, pictures, masks, disk, memory, speed, learning. Writes WORKDIR/"
        "doctor/batch.png and nothing else.",
        epilog="exit codes: 0 nothing is wrong, 1 something is, 2 wrong use",
        usage="%(prog)s --config=FILE [--config.KEY=VALUE ...] --workdir=DIR",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="the config to train with")
    parser.add_argument("--workdir", metavar="DIR", help="the run's folder, as for training")
    parser.parse_known_args(arguments)  # For --help; the rest is read as for training.
    restart_with_huge_pages()
    run_command(lambda: _examine(arguments))


def _examine(arguments: Sequence[str]) -> None:
    from deepfill_jax import flags

    config, workdir = flags.parse(["deepfill doctor", *arguments]), flags.require_workdir()
    # Here, and not above: what is wrong with the command comes before TensorFlow is imported.
    from deepfill_jax.doctor import examination

    examination.run(config, workdir)


if __name__ == "__main__":
    main()
