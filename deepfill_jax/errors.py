"""The two errors that a user should read, and how commands report them."""

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


def run_command(command: Callable[[], None]) -> None:
    """Runs the body of a command and turns the two errors above into a line and an exit code."""
    try:
        command()
    except (UsageError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
