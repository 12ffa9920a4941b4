"""The command that lists, downloads and removes models.

python -m deepfill_jax.convert.models [download NAME | remove NAME]
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deepfill_jax import published, trained
from deepfill_jax.convert import sources
from deepfill_jax.errors import run_command

_MORE = """\
states:
  bundled  comes with the package
  cached   was downloaded; no network is needed
  known    is downloaded on first use
  by hand  has no plain URL; using the name prints what to do

Any https:// URL of weights and hf://OWNER/REPO/FILE can be used like a name.
DEEPFILL_MIRROR is the URL of a folder with copies of the known files.
"""


class Row(NamedTuple):
    """A line of the list; sizes are in MB, None if unknown."""

    name: str
    state: str
    size: float | None
    purpose: str
    license: str


def rows() -> Iterator[Row]:
    """Yields the bundled models, the known ones, and other downloads."""
    for name in trained.names():
        size = trained.find(name).stat().st_size / 1e6
        license = sources.read(name).model.metadata.get("license", "unknown")
        yield Row(name, "bundled", size, trained.PURPOSES.get(name, ""), license)
    cached = published.cached()
    for name, entry in published.ENTRIES.items():
        path = cached.pop(name, None)
        size = path.stat().st_size / 1e6 if path else entry.megabytes
        yield Row(name, "cached" if path else "known", size, entry.purpose, entry.license)
    for name, by_hand in published.BY_HAND.items():
        yield Row(name, "by hand", None, by_hand.purpose, by_hand.license)
    for source, path in cached.items():
        yield Row(source, "cached", path.stat().st_size / 1e6, "", "see its publisher")


def print_list() -> None:
    """Prints the list of models as a table."""
    listed = list(rows())
    names = max(len(row.name) for row in listed)
    purposes = max(len(row.purpose) for row in listed)
    for name, state, size, purpose, license in listed:
        megabytes = "" if size is None else f"{size:.0f} MB"
        print(f"{name:{names}}  {state:7}  {megabytes:>8}  {purpose:{purposes}}  {license}")


def download(name: str) -> None:
    """Downloads published weights, converts them and prints where the model file is.

    Raises:
        UsageError: See `published.fetch`, or the file cannot be converted.
        RunError: See `published.fetch`.
    """
    print(*sources.read(name).files, sep="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; without a command, it prints the list."""
    parser = argparse.ArgumentParser(
        "deepfill models",
        description="Lists models with state, size, purpose and license.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, command, text in (
        ("download", download, "download and convert published weights"),
        ("remove", published.remove, "delete downloaded weights from the cache"),
    ):
        added = commands.add_parser(name, help=text)
        added.add_argument("name", help="a known name, https:// URL or hf://OWNER/REPO/FILE")
        added.set_defaults(command=command)
    options = parser.parse_args(arguments)
    if "command" in options:
        run_command(lambda: options.command(options.name))
    else:
        run_command(print_list)


if __name__ == "__main__":
    main()
