"""The command-line arguments of `deepfill inpaint`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deepfill_jax import pictures, published, trained
from deepfill_jax.cli import number
from deepfill_jax.convert import MODEL_HELP
from deepfill_jax.inpaint import batch
from deepfill_jax.inpaint.plan import Shard
from deepfill_jax.inpaint.windows import BUDGET, STRATEGIES
from deepfill_jax.pictures import ORIENTATIONS

_MORE = """\
masks:
  White pixels are the hole. In a folder, a mask is matched to its image by name: the image's name
  with or without its suffix, alone or with "mask" before or after it. For example, photo.png,
  photo.jpg.png, photo_mask.png, photo-mask.png, photo_mask_000.png and mask_photo.png are masks of
  photo.jpg. Each mask yields one result, which has the name of the mask.
  Masks that store class or instance numbers need --mask-threshold 0.

interrupted runs:
  Run the same command again to process the remaining images. A result is also recomputed if its
  image, mask, sketch or model or an option has changed, which a record in the hidden folder
  .deepfill_jax beside the results tells, or if --output names a file.

clusters:
  An array of 16 SLURM tasks, each of which processes one part:
    sbatch --array=1-16 --wrap 'deepfill inpaint ... --shard $SLURM_ARRAY_TASK_ID/16'

exit codes:
  0: all images were completed; 1: some images failed, each is reported on stderr;
  2: usage error; 130: interrupted
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses and checks the arguments; exits with code 2 if one of them is invalid."""
    parser = argparse.ArgumentParser(
        "deepfill inpaint",
        description="Inpaints an image or a folder of images. Known pixels do not change.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_paths(parser)
    _add_completion(parser)
    _add_mask_reading(parser)
    _add_results(parser)
    options = parser.parse_args(arguments)
    _check(parser, options)
    if options.model is None:
        options.model = trained.DEFAULT
        print(f"model: {trained.DEFAULT}; choose another with --model", file=sys.stderr)
    return options


def _add_paths(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        metavar="MODEL",
        help=f"{MODEL_HELP}, or a classical method: telea, navier_stokes, patchmatch, biharmonic "
        f"(default: {trained.DEFAULT}, for {trained.PURPOSES[trained.DEFAULT]})",
    )
    add("--offline", action=published.ForbidDownloads)
    add(
        *("--images", "--image"),
        type=_path,
        required=True,
        metavar="PATH",
        help="image file, or folder of image files",
    )
    add(
        *("--masks", "--mask"),
        type=_path,
        metavar="PATH",
        help="one mask for all images, or a folder of masks, which may be that of the images; "
        "default: the transparent pixels of each image are its hole",
    )
    add(
        *("--sketches", "--sketch"),
        type=_path,
        metavar="PATH",
        help="white lines that guide the completion (guided models only): one sketch for all "
        "images, or a folder of sketches with the names of the images or masks",
    )
    add(
        "--output",
        type=_path,
        required=True,
        metavar="PATH",
        help="folder for the results, or file for the result of a single image",
    )


def _add_completion(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="how to process images larger than the working size (default: %(default)s)",
    )
    add(
        "--budget",
        type=number(float, 1e-6, 1e6),
        default=BUDGET,
        metavar="MP",
        help="megapixels that the network processes at most for an image with --strategy auto; "
        "with less, thin holes of large images are filled faster, at a smaller scale (default: "
        "%(default)g)",
    )
    add(
        "--working-size",
        type=number(int, 1),
        metavar="N",
        help="side in pixels of the images that the network works best on, a multiple of 8 "
        "(default: the training size of the model)",
    )
    add(
        "--no-detail",
        action="store_false",
        dest="detail",
        help="copy no detail from the known pixels: completions that were computed at a smaller "
        "scale stay soft",
    )
    add(
        "--no-seamless",
        action="store_false",
        dest="seamless",
        help="leave the colors of the completion as the network predicts them, instead of matching "
        "them to the image at the border of the hole",
    )
    add(
        "--dilate",
        type=number(int, 0),
        default=0,
        metavar="PX",
        help="dilate the hole by PX pixels (default: %(default)s)",
    )
    add(
        "--feather",
        type=number(int, 0),
        default=0,
        metavar="PX",
        help="blend the completion with the image over PX pixels of the dilated rim "
        "(default: %(default)s)",
    )


def _add_mask_reading(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--mask-threshold",
        type=number(float, 0, 1),
        default=0.5,
        metavar="T",
        help="fraction of white above which a mask pixel is hole (default: %(default)s); use 0 for "
        "masks of class numbers",
    )
    add("--invert-mask", action="store_true", help="treat black as the hole")
    add("--resize-mask", action="store_true", help="scale masks whose size differs from the image")
    add(
        "--mask-orientation",
        choices=ORIENTATIONS,
        default="auto",
        help="whether masks of images with an EXIF orientation were drawn on the upright image or "
        "on its stored pixels (default: %(default)s, which compares the sizes)",
    )
    add(
        "--no-mask-check",
        dest="mask_check",
        action="store_false",
        help="accept masks that are empty, cover the whole image, or seem to store class numbers",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--format",
        choices=("png", "same"),
        default="png",
        help="format of the results in a folder: PNG, or the format of each image (default: "
        "%(default)s)",
    )
    add(
        "--max-megapixels",
        type=number(float, 1e-6, 1e6),
        default=pictures.MAX_PIXELS / 1e6,
        metavar="N",
        help="reject larger images (default: %(default)g); at most "
        f"{batch.IN_MEMORY} images are in memory at once",
    )
    add(
        "--shard",
        type=_shard,
        default=Shard(1, 1),
        metavar="I/N",
        help="process the I-th of N parts, counted from 1",
    )
    add("--recursive", action="store_true", help="search subfolders too")
    add("--overwrite", action="store_true", help="recompute results that already exist")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.masks is None:
        for name in ("mask_threshold", "invert_mask", "resize_mask", "mask_orientation"):
            if getattr(options, name) != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')} needs --masks")
    if options.mask_threshold == 1:
        parser.error("--mask-threshold 1 leaves no hole; choose a value below 1")
    if options.budget != BUDGET and options.strategy != "auto":
        parser.error(
            f"--budget has no effect with --strategy {options.strategy}; only auto has one"
        )
    if options.feather > options.dilate:
        parser.error(
            f"--feather {options.feather} blends within the rim that --dilate adds to the hole; "
            f"add --dilate {options.feather} or more"
        )


def _path(text: str) -> Path:
    if not text:  # A variable of the shell that is not set; `Path` would take the current folder.
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _shard(text: str) -> Shard:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 3/16")
    return Shard(int(index), int(count))
