"""Progress bars: drawn on terminals only."""

import io

from rich.progress import BarColumn

from deepfill_jax.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def draw(stream):
    with progress_bar(BarColumn(), stream=stream) as bar:
        bar.advance(bar.add_task("", total=1))
    return stream.getvalue()


def test_bar_is_drawn_on_a_terminal():
    assert "━" in draw(Terminal())


def test_nothing_is_written_to_a_file():
    assert draw(io.StringIO()) == ""
