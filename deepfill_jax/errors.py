"""What a user should read when a command ends before its work does, and the exit codes."""

import sys
import traceback
from collections.abc import Callable


class UsageError(ValueError):
    """Something handed in cannot be used: a path, a picture, a config key, a weights file.

    The message is one sentence that names the thing, says what was wrong with it and what to do.
    Commands print it without a traceback and exit with code 2.
    """


class RunError(RuntimeError):
    """The work, or a part of it, could not be done; what was done is kept.

    The message names what failed, and where to go on. Commands print it without a traceback and
    exit with code 1.
    """


class PreemptedError(Exception):
    """The work was stopped on request; what was done is saved, and the same command goes on.

    Commands print it and exit with code 75, which launchers take as: start it again.
    """


EXIT_CODES = {UsageError: 2, RunError: 1, PreemptedError: 75}


def report(error: Exception) -> int:
    """Prints one of the errors above as a line, any other with its traceback.

    Returns:
        The exit code.
    """
    if type(error) not in EXIT_CODES:
        traceback.print_exception(error)
        return 1
    label = "" if isinstance(error, PreemptedError) else "error: "
    print(f"{label}{error}", file=sys.stderr, flush=True)
    return EXIT_CODES[type(error)]


def run_command(command: Callable[[], None]) -> None:
    """Runs the body of a command and turns the errors above into a line and an exit code."""
    try:
        command()
    except tuple(EXIT_CODES) as error:
        sys.exit(report(error))
