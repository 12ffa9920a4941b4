"""Progress bars of commands."""

import contextlib
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn


@contextlib.contextmanager
def progress_bar(*columns: ProgressColumn, stream: TextIO) -> Iterator[Progress]:
    """Yields a progress bar, which is drawn only if the stream is a terminal.

    Elsewhere, the bar is not started at all: a bar that is started and disabled writes an empty
    line with rich 13.
    """
    bar = Progress(*columns, console=Console(file=stream))
    with bar if stream.isatty() else contextlib.nullcontext():
        yield bar
