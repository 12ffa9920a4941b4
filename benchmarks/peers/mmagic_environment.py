"""The Python environment of MMagic's peer process, which is created on the first start."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from deepfill_jax.errors import RunError

# MMagic 1.2.0 needs numpy 1.26 and packages that work with it. Of MMagic's own requirements, only
# those that its DeepFillv2 imports are installed.
REQUIREMENTS = (
    "torch==2.13.0",
    "numpy==1.26.4",
    "opencv-python==4.11.0.86",
    "mmengine==0.10.7",
    "mmcv-lite==2.1.0",
    "click",
    "requests",
)
MMAGIC_RELEASE = "mmagic==1.2.0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of scripts that run MMagic: generator width and environment folder."""

    def width(text: str) -> int:
        if not text.isdecimal() or int(text) < 6 or int(text) % 6:
            raise argparse.ArgumentTypeError(
                f"{text} must be a positive multiple of 6, as MMagic's second decoder is a third "
                "wider."
            )
        return int(text)

    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "deepfill_jax/mmagic"
    parser.add_argument("--width", type=width, default=24, help="generator width in channels")
    parser.add_argument("--environment", type=lambda x: Path(x).absolute(), default=folder)


def make_environment(folder: Path) -> Path:
    """Creates MMagic's environment if it does not exist, and returns its Python.

    Raises:
        RunError: A package could not be installed.
    """
    python, stamp = folder / "bin/python", folder / "requirements.txt"
    requirements = "\n".join((*REQUIREMENTS, MMAGIC_RELEASE, ""))
    if stamp.is_file() and stamp.read_text() == requirements:
        return python
    print(f"Creating {folder} (PyTorch, MMagic) ...", file=sys.stderr, flush=True)
    pip = [python, "-m", "pip", "install", "--quiet"]
    commands = (
        [sys.executable, "-m", "venv", "--clear", folder],
        [*pip, *REQUIREMENTS],
        [*pip, "--no-deps", MMAGIC_RELEASE],
    )
    for command in commands:
        if subprocess.run(command).returncode:
            raise RunError(f"The environment {folder} could not be created; see pip's error above.")
    stamp.write_text(requirements)
    return python
