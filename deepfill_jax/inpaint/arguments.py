"""The arguments of the command that completes pictures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deepfill_jax import pictures, trained
from deepfill_jax.cli import number
from deepfill_jax.convert import MODEL_HELP
from deepfill_jax.inpaint import batch
from deepfill_jax.inpaint.plan import Shard
from deepfill_jax.inpaint.windows import STRATEGIES
from deepfill_jax.pictures import ORIENTATIONS

_MORE = """\
masks:
  White is the hole. A folder's masks have their picture's name, with or without its suffix, alone
  or with "mask" before or behind it: photo.jpg goes with photo.png, photo.jpg.png, photo_mask.png,
  photo-mask.png, photo_mask_000.png, mask_photo.png. Each mask has a result, named as the mask is.
  Masks of class or instance numbers need --mask-threshold 0.

stopped runs:
  The same command goes on where it was stopped. Results that are older than their picture, mask,
  sketch or model are done again, and so is a file named by --output.

clusters:
  Each of 16 SLURM tasks does its part:
    sbatch --array=1-16 --wrap 'deepfill inpaint ... --shard $SLURM_ARRAY_TASK_ID/16'

exit codes:
  0: all done; 1: some failed, each with a line on stderr; 2: wrong use; 130: interrupted
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses and checks the arguments; exits with code 2 if one is wrong."""
    parser = argparse.ArgumentParser(
        "deepfill inpaint",
        description="Completes a picture, or a folder of them; known pixels stay as they are.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        metavar="MODEL",
        help=f"{MODEL_HELP} (default: {trained.DEFAULT}, for {trained.PURPOSES[trained.DEFAULT]})",
    )
    add(
        *("--images", "--image"),
        type=Path,
        required=True,
        metavar="PATH",
        help="picture, or folder of them",
    )
    add(
        *("--masks", "--mask"),
        type=Path,
        metavar="PATH",
        help="mask for all, or folder, also that of the pictures; without it, the hole is what is "
        "transparent in the pictures",
    )
    add(
        *("--sketches", "--sketch"),
        type=Path,
        metavar="PATH",
        help="of guided models: white lines that the fill shall follow; a picture for all, or a "
        "folder of them, named as pictures or masks",
    )
    add(
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder, or file for one picture",
    )
    add(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="how large pictures are completed",
    )
    add("--working-size", type=number(int, 1), metavar="N", help="side that the network works at")
    add("--dilate", type=number(int, 0), default=0, metavar="PX", help="widen the hole")
    add("--feather", type=number(int, 0), default=0, metavar="PX", help="blend inside the hole")
    add(
        "--mask-threshold",
        type=number(float, 0, 1),
        default=0.5,
        metavar="T",
        help="above this part of white is the hole (%(default)s); 0 for masks of class numbers",
    )
    add("--invert-mask", action="store_true", help="black is the hole")
    add("--resize-mask", action="store_true", help="stretch masks of another size")
    add(
        "--mask-orientation",
        choices=ORIENTATIONS,
        default="auto",
        help="what masks of pictures with an EXIF orientation were drawn on: the upright picture, "
        "or its stored pixels (%(default)s: by their sizes)",
    )
    add(
        "--no-mask-check",
        dest="mask_check",
        action="store_false",
        help="accept masks without a hole, without known pixels, or like those of class numbers",
    )
    add(
        "--format",
        choices=("png", "same"),
        default="png",
        help="of results in a folder: PNG, or their picture's",
    )
    add(
        "--max-megapixels",
        type=number(float, 1e-6, 1e6),
        default=pictures.MAX_PIXELS / 1e6,
        metavar="N",
        help=f"refuse larger pictures (%(default)g); at most {batch.IN_MEMORY} are in memory",
    )
    add(
        "--shard",
        type=_shard,
        default=Shard(1, 1),
        metavar="I/N",
        help="do the I-th of N parts, counted from 1",
    )
    add("--recursive", action="store_true", help="search the folders in these folders too")
    add("--overwrite", action="store_true", help="do again what is there")
    options = parser.parse_args(arguments)
    _check(parser, options)
    if options.model is None:
        options.model = trained.DEFAULT
        print(f"model: {trained.DEFAULT}; choose another with --model", file=sys.stderr)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.masks is None:
        for name in ("mask_threshold", "invert_mask", "resize_mask", "mask_orientation"):
            if getattr(options, name) != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')} needs --masks")
    if options.mask_threshold == 1:
        parser.error("--mask-threshold 1 leaves no hole; choose a number below 1")
    if options.feather > options.dilate:
        parser.error(
            f"--feather {options.feather} blends in the rim by which the hole is widened; add "
            f"--dilate {options.feather}, or more"
        )


def _shard(text: str) -> Shard:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 3/16")
    return Shard(int(index), int(count))
