"""The one error that a user can cause, and how commands report it."""

import sys
from collections.abc import Callable


class UsageError(ValueError):
    """Something handed in cannot be used: a path, a picture, a config key, a weights file.

    The message is one sentence that names the thing, says what was wrong with it and what to do.
    Commands print it without a traceback and exit with code 2.
    """


def run_command(command: Callable[[], None]) -> None:
    """Runs a command line's body and exits: with code 2 and one line for a `UsageError`."""
    try:
        command()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
