"""The one error that a user can cause."""


class UsageError(ValueError):
    """Something handed in cannot be used: a path, a picture, a config key, a weights file.

    The message is one sentence that names the thing, says what was wrong with it and what to do.
    Commands print it without a traceback and exit with code 2.
    """
