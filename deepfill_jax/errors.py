"""Errors that commands report to the user in one line, and their exit codes."""

import contextlib
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator


class UsageError(ValueError):
    """An input cannot be used: a path, an image file, a config key, a weights file.

    The message is one sentence that names the input, the fault and the remedy. Commands print it
    without a traceback and exit with code 2.
    """


class RunError(RuntimeError):
    """A task failed, completely or in part; results so far are kept.

    The message says what failed and how to continue. Commands print it without a traceback and exit
    with code 1.
    """


class PreemptedError(Exception):
    """A task was stopped on request; its state is saved, and the same command resumes it.

    Commands print the message and exit with code 75, which tells launchers to restart them.
    """


EXIT_CODES = {UsageError: 2, RunError: 1, PreemptedError: 75}


def printable(text: str) -> str:
    r"""Escapes what would not show or would move a terminal's cursor, such as a newline in a name.

    A byte of a file name that is not UTF-8 becomes `\xe9`, a newline `\n`.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # How Python holds bytes that are not UTF-8.
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def report(error: Exception) -> int:
    """Prints one of the errors above in one line, any other error with its traceback.

    Returns:
        The exit code.
    """
    if type(error) not in EXIT_CODES:
        traceback.print_exception(error)
        return 1
    label = "" if isinstance(error, PreemptedError) else "error: "
    lines = f"{label}{error}".split("\n")
    print("\n".join(map(printable, lines)), file=sys.stderr, flush=True)
    return EXIT_CODES[type(error)]


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Looked up for each record, because progress bars replace `sys.stderr`.
        label = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        print(f"{label}{record.getMessage()}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Writes what the package logs to stderr, one line per record, until the block ends.

    The package itself only logs, under the name `deepfill_jax`; commands add this handler.
    """
    logger, handler = logging.getLogger("deepfill_jax"), _ToStderr()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # Progress, such as how many files are checked, is shown.
    logger.propagate = False  # Other libraries add a handler to the root: a second line.
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def run_command(command: Callable[[], None]) -> None:
    """Runs the body of a command and converts the errors above to a line and an exit code.

    The package's log goes to standard error. Standard output escapes what the console's encoding
    lacks, as standard error always does. Warnings of Pillow about odd files are not shown.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with logging_to_stderr(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            command()
    except tuple(EXIT_CODES) as error:
        sys.exit(report(error))
