"""The command that completes a picture, or a folder of them.

python -m deepfill_jax.inpaint --model MODEL --images PATH --masks PATH --output PATH
"""

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)

from deepfill_jax import pictures
from deepfill_jax.cli import number
from deepfill_jax.convert import MODEL_HELP
from deepfill_jax.errors import RunError, UsageError, run_command
from deepfill_jax.inpaint import batch
from deepfill_jax.inpaint.plan import (
    Failure,
    Job,
    Shard,
    clean,
    first_few,
    masks_without_picture,
    names_a_file,
    plan,
    remaining,
)
from deepfill_jax.inpaint.windows import STRATEGIES
from deepfill_jax.pictures import ORIENTATIONS, MaskOptions

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
  0: all done; 1: some could not be, and are listed in the end; 2: wrong use; 130: interrupted
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Completes the pictures that the command line names."""
    options = _parse(arguments)
    try:
        run_command(lambda: run(options))
    except KeyboardInterrupt:
        print("interrupted: what is done stays, the same command does the rest", file=sys.stderr)
        sys.exit(130)


def run(options: argparse.Namespace) -> None:
    """Completes what is not there yet, tells of each picture, and sums up.

    Raises:
        UsageError: No work can be done: see `plan.plan` and `Inpainter.load`; or the only picture
            cannot be used.
        RunError: In the end, if some pictures could not be completed.
    """
    started = time.monotonic()
    keep_format = options.format == "same"
    planned = options.shard.of(
        plan(
            options.images,
            options.masks,
            options.output,
            sketches=options.sketches,
            keep_format=keep_format,
        )
    )
    clean(planned)
    todo, fill = planned, None
    if any(isinstance(item, Job) for item in planned):
        fill, model_files = _filler(options)  # A wrong model is an error, whatever is there.
        if not options.overwrite and not names_a_file(options.images, options.output):
            todo = remaining(planned, model_files)
    load = functools.partial(
        batch.load,
        options=_mask_options(options),
        max_pixels=int(1e6 * options.max_megapixels),
    )
    with _progress(len(todo)) as report:
        ended = batch.complete(todo, load=load, fill=fill, report=report)
    failures = [end for end in ended if isinstance(end, Failure)]
    if len(planned) == 1 and failures and failures[0].is_wrong_use:
        raise UsageError(failures[0].reason)
    print(
        f"{len(ended) - len(failures)} completed, {len(planned) - len(todo)} already there, "
        f"{len(failures)} failed, in {time.monotonic() - started:.1f} s"
    )
    if rest := masks_without_picture(options.images, options.masks):
        print(f"{len(rest)} masks belong to no picture and were not used: {first_few(rest)}")
    if failures:
        raise RunError("\n  ".join(["not completed:", *(failure.reason for failure in failures)]))


def _mask_options(options: argparse.Namespace) -> MaskOptions:
    return MaskOptions(
        threshold=options.mask_threshold,
        invert=options.invert_mask,
        check=options.mask_check,
        orientation=options.mask_orientation,
        resize=options.resize_mask,
        say_threshold="--mask-threshold 0",
        say_unchecked="--no-mask-check",
        say_orientation="--mask-orientation",
        say_resize=", or --resize-mask",
    )


def _filler(options: argparse.Namespace) -> tuple[batch.Fill, Sequence[Path]]:
    """Loads the model; returns what fills with it, and its files."""
    # Here, and not above: JAX takes a second, and what is wrong with the command comes first.
    from deepfill_jax import compile_cache
    from deepfill_jax.convert import sources
    from deepfill_jax.inpaint.inpainter import Inpainter

    compile_cache.cache_on_disk()
    read = sources.read(options.model)
    inpainter = Inpainter(read.model, working_size=options.working_size)
    if options.sketches and not inpainter.guided:
        raise UsageError(f"{options.model} takes no sketches; leave out --sketches.")
    fill = functools.partial(
        inpainter.complete,
        strategy=options.strategy,
        dilate=options.dilate,
        feather=options.feather,
        check_mask=False,  # The mask's file was checked.
    )
    return fill, read.files


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[batch.Done | Failure], None]]:
    """Gives what to tell each end to: a bar on a terminal with failures above; elsewhere lines."""
    terminal = sys.stdout.isatty()
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, disable=not terminal) as progress:
        task = progress.add_task("", total=count)

        def report(end):
            if isinstance(end, Failure) or not terminal:
                print(end, flush=True)
            progress.advance(task)

        yield report


class _Rate(ProgressColumn):
    def render(self, task: Task) -> str:
        return f"{task.speed:.2g} pictures/s" if task.speed else ""


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "deepfill inpaint",
        description="Completes a picture, or a folder of them; known pixels stay as they are.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    add("--images", type=Path, required=True, metavar="PATH", help="picture, or folder of them")
    add(
        "--masks",
        type=Path,
        metavar="PATH",
        help="mask for all, or folder, also that of the pictures; without it, the hole is what is "
        "transparent in the pictures",
    )
    add(
        "--sketches",
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
    add("--overwrite", action="store_true", help="do again what is there")
    options = parser.parse_args(arguments)
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
    return options


def _shard(text: str) -> Shard:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 3/16")
    return Shard(int(index), int(count))


if __name__ == "__main__":
    main()
