"""The console command `deepfill`, which runs the other commands of this package."""

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Sequence

from deepfill_jax import __version__

# Module with `main(arguments)`, and description. A module is imported only to run its command.
COMMANDS = {
    "inpaint": ("deepfill_jax.inpaint.__main__", "inpaint an image or a folder of images"),
    "convert": ("deepfill_jax.convert.__main__", "write a model file from a run or other weights"),
    "inspect": ("deepfill_jax.convert.inspect", "describe a model file or other weights"),
    "models": ("deepfill_jax.convert.models", "list, download and remove models"),
    "export": ("deepfill_jax.export.__main__", "write a StableHLO or ONNX file from a model"),
    "train": ("deepfill_jax.train.__main__", "train by a config, or resume a run"),
    "evaluate": (
        "deepfill_jax.evaluate.__main__",
        "score a model, a baseline or predictions on held-out images",
    ),
    "doctor": ("deepfill_jax.doctor.__main__", "check machine, data and config before training"),
    "app": ("deepfill_jax.app.__main__", "serve a web UI and an HTTP API for inpainting"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names, with the other arguments."""
    arguments = sys.argv[1:] if arguments is None else arguments
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        "deepfill",
        description="DeepFillv2: image inpainting with gated convolution.",
        usage="%(prog)s [-h] [--version] COMMAND ...",
        epilog="\n".join(
            ["commands:"]
            + [f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()]
            + ["", "deepfill COMMAND --help lists the options of a command."]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", metavar="COMMAND", type=_known, help=argparse.SUPPRESS)
    name = parser.parse_args(arguments[:1]).command
    module, _ = COMMANDS[name]
    importlib.import_module(module).main(arguments[1:])


def _known(name: str) -> str:
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
        raise argparse.ArgumentTypeError(f"there is no command {name}; {hint}")
    return name


def number(kind: type, least: float, most: float = math.inf) -> Callable[[str], float]:
    """Makes an argparse type: a number of the type `kind` from `least` to `most`, inclusive."""

    def parse(text: str) -> float:
        number = kind(text)
        if not least <= number <= most:
            limits = f"at least {least}" if most == math.inf else f"from {least} to {most:g}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return number

    parse.__name__ = kind.__name__  # argparse's message about other text contains this name.
    return parse
