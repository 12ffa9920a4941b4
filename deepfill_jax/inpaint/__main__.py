"""The command that inpaints an image or a folder of images.

python -m deepfill_jax.inpaint --images PATH --masks PATH --output PATH
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
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)

from deepfill_jax.errors import RunError, UsageError, printable, run_command
from deepfill_jax.inpaint import batch
from deepfill_jax.inpaint.arguments import parse
from deepfill_jax.inpaint.finding import find
from deepfill_jax.inpaint.pairing import first_few, pair
from deepfill_jax.inpaint.plan import Failure, Job, clean, names_a_file, plan
from deepfill_jax.inpaint.records import Records
from deepfill_jax.pictures import MaskOptions
from deepfill_jax.progress import progress_bar


def main(arguments: Sequence[str] | None = None) -> None:
    """Inpaints the images that the command line names."""
    options = parse(arguments)
    try:
        run_command(lambda: run(options))
    except KeyboardInterrupt:
        print(
            "interrupted: run the same command again to process the remaining images",
            file=sys.stderr,
        )
        sys.exit(130)


def run(options: argparse.Namespace) -> None:
    """Completes the images that have no current result, reports each, and prints a summary.

    Raises:
        UsageError: The arguments allow no work, see `plan.plan` and `Inpainter.load`; or there is
            only one image and it cannot be used.
        RunError: Some images failed. It is raised at the end; each failure was reported before.
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
            recursive=options.recursive,
        )
    )
    clean(planned)
    # An invalid model is an error even if all results exist.
    has_jobs = any(isinstance(item, Job) for item in planned)
    fill, model_files = _filler(options) if has_jobs else (None, [])
    is_file = names_a_file(options.images, options.output)
    records = Records(planned, options, model_files, is_file=is_file)
    todo = planned if options.overwrite or is_file else records.remaining(planned)
    if records.outdated:
        changed = ", ".join(sorted(records.changed)).replace("_", " ")
        print(f"changed: {changed}; existing results made otherwise: {records.outdated}, redone")
    load = functools.partial(
        batch.load,
        options=_mask_options(options),
        max_pixels=int(1e6 * options.max_megapixels),
    )
    is_single = len(planned) == 1
    with _progress(len(todo), show_failures=not is_single) as report:
        ended = batch.complete(todo, load=load, fill=fill, write=records.write, report=report)
    failures = [end for end in ended if isinstance(end, Failure)]
    if is_single and failures:
        error = UsageError if failures[0].is_usage_error else RunError
        raise error(printable(failures[0].reason))
    print(
        f"{len(ended) - len(failures)} completed, {len(planned) - len(todo)} already done, "
        f"{len(failures)} failed, in {time.monotonic() - started:.1f} s"
    )
    if records.unrecorded:
        print(
            f"kept: {records.unrecorded} existing results without a record of how they were made; "
            "--overwrite replaces them"
        )
    _print_unused(options)
    if failures:
        raise RunError(f"{len(failures)} of {len(planned)} images failed; the lines above say why.")


def _print_unused(options: argparse.Namespace) -> None:
    """Prints which masks and other files were found but not used."""
    places = options.images, options.masks, options.sketches, options.output
    search = functools.partial(find, recursive=options.recursive, skip=places)
    rest = pair(options.images, options.masks, search).rest if options.images.is_dir() else ()
    if rest:
        few = printable(first_few(rest))
        print(f"{len(rest)} masks match no image and were not used: {few}")
    if passed_over := search(options.images).passed_over():
        print(passed_over)


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
    """Loads the model; returns the function that completes an image with it, and its files."""
    # Importing JAX takes a second, so errors of the command line are reported before it.
    from deepfill_jax import compile_cache
    from deepfill_jax.inpaint.classical import find_method
    from deepfill_jax.inpaint.inpainter import Inpainter

    compile_cache.enable()
    model, files = find_method(options.model)
    inpainter = Inpainter(model, working_size=options.working_size)
    if options.sketches and not inpainter.guided:
        raise UsageError(
            f"{options.model} does not accept sketches; omit --sketches, or use a guided model "
            "such as --model guided."
        )
    fill = functools.partial(
        inpainter.complete,
        strategy=options.strategy,
        budget=options.budget,
        detail=options.detail,
        seamless=options.seamless,
        dilate=options.dilate,
        feather=options.feather,
        mask_orientation="upright",  # The mask was oriented when it was read.
        check_mask=options.mask_check,
    )
    step = model.metadata.get("step")  # A run is FOLDER or FOLDER@STEP.
    run = Path(options.model.rpartition("@")[0] or options.model)
    return fill, files or list(run.glob(f"checkpoints/{step}"))


@contextlib.contextmanager
def _progress(
    count: int, *, show_failures: bool
) -> Iterator[Callable[[batch.Done | Failure], None]]:
    """Yields the function that reports each outcome: a bar on a terminal, lines elsewhere."""
    terminal = sys.stdout.isatty()
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with progress_bar(*columns, stream=sys.stdout) as progress:
        task = progress.add_task("", total=count)

        def report(end: batch.Done | Failure) -> None:
            if isinstance(end, Failure):
                if show_failures:
                    print(end, file=sys.stderr, flush=True)
            elif not terminal:
                print(end, flush=True)
            progress.advance(task)

        yield report


class _Rate(ProgressColumn):
    def render(self, task: Task) -> str:
        return f"{task.speed:.2g} images/s" if task.speed else ""


if __name__ == "__main__":
    main()
