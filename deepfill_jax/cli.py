"""The console command `deepfill`: one name for the commands of this package."""

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Sequence

# Module, and what its `main(arguments)` does. Nothing is imported before its command is called.
COMMANDS = {
    "inpaint": ("deepfill_jax.inpaint.__main__", "complete a picture, or a folder of them"),
    "convert": ("deepfill_jax.convert.__main__", "make a model file of a run or others' weights"),
    "inspect": (
        "deepfill_jax.convert.inspect",
        "say what is in a model file, or in others' weights",
    ),
    "export": ("deepfill_jax.export.__main__", "make a StableHLO or ONNX file of a model file"),
    "doctor": ("deepfill_jax.doctor.__main__", "check machine, data and config before a training"),
    "app": ("deepfill_jax.app.__main__", "serve a page and an HTTP API that complete pictures"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Calls the command that is named first with the arguments behind it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        "deepfill",
        description="DeepFillv2: fills holes in pictures.",
        epilog="\n".join(
            ["commands:"]
            + [f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()]
            + ["", "deepfill COMMAND --help tells more of each."]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", type=_known, help=argparse.SUPPRESS)
    name = parser.parse_args(arguments[:1]).command
    module, _ = COMMANDS[name]
    importlib.import_module(module).main(arguments[1:])


def _known(name: str) -> str:
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise argparse.ArgumentTypeError(f"no command is called {name}; {hint}")
    return name


def number(kind: type, least: float, most: float = math.inf) -> Callable[[str], float]:
    """An argument's type: a number, and no other than from `least` to `most`."""

    def parse(text: str) -> float:
        number = kind(text)
        if not least <= number <= most:
            limits = f"at least {least}" if most == math.inf else f"from {least} to {most:g}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return number

    parse.__name__ = kind.__name__  # For what argparse says of text that is no number.
    return parse
