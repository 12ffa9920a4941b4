"""The command that describes a model file, or any other weights that `convert` reads.

python -m deepfill_jax.convert.inspect [MODEL] [--json]
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepfill_jax import published, trained
from deepfill_jax.convert import MODEL_HELP, report, sources
from deepfill_jax.errors import run_command


def inspect(source: str | Path) -> dict[str, Any]:
    """Reads weights and describes them.

    Args:
        source: See `convert.sources.read`.

    Returns:
        A JSON object: architecture, sizes, metadata of the training, and the size in bytes and the
        SHA-256 of each file.

    Raises:
        UsageError: The source cannot be read.
    """
    conversion = sources.read(source)
    return report.describe(conversion) | {
        "files": {path.name: _describe_file(path) for path in conversion.files}
    }


def inspect_trained() -> dict[str, dict[str, Any]]:
    """Describes the bundled models, by name."""
    return {name: inspect(name) for name in trained.names()}


def _describe_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def main(arguments: Sequence[str] | None = None) -> None:
    """Describes the weights named on the command line."""
    parser = argparse.ArgumentParser("deepfill inspect")
    parser.add_argument(
        "source",
        nargs="?",
        help=f"{MODEL_HELP}; all bundled models if omitted",
    )
    parser.add_argument("--offline", action=published.ForbidDownloads)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)

    def command() -> None:
        description = inspect(options.source) if options.source else inspect_trained()
        if options.json:
            print(json.dumps(description, indent=2))
        else:
            print(*report.lines(description), sep="\n")

    run_command(command)


if __name__ == "__main__":
    main()
