"""What a user should read when a command ends before its work does, and the exit codes."""

import sys
from collections.abc import Callable


class UsageError(ValueError):
    """Something handed in cannot be used: a path, a picture, a config key, a weights file.

    The message is one sentence that names the thing, says what was wrong with it and what to do.
    Commands print it without a traceback and exit with code 2.
    """


class FailedError(RuntimeError):
    """The work, or a part of it, could not be done; what was done is kept.

    The message names what failed, and where to go on. Commands print it without a traceback and
    exit with code 1.
    """


class StoppedError(Exception):
    """The work was stopped on request; what was done is saved, and the same command goes on.

    Commands print it and exit with code 75, which launchers take as: start it again.
    """


EXIT_CODES = {UsageError: 2, FailedError: 1, StoppedError: 75}


def run_command(command: Callable[[], None]) -> None:
    """Runs the body of a command and turns the errors above into a line and an exit code."""
    try:
        command()
    except tuple(EXIT_CODES) as error:
        label = "" if isinstance(error, StoppedError) else "error: "
        print(f"{label}{error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_CODES[type(error)])
