"""`deepfill convert`: writes a model file from a training run or other implementations' weights.

python -m deepfill_jax.convert SOURCE --output MODEL.safetensors [--dtype float16] [--report -]

With `--output MODEL.pth`, it writes weights that MMagic can load.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from deepfill_jax import published, renamed, trained, weights
from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert import MODEL_HELP, mmagic, parent, report, run, sources
from deepfill_jax.convert.layout import Conversion
from deepfill_jax.errors import UsageError, run_command

MMAGIC_SUFFIX = ".pth"


def convert(
    source: str | Path,
    output: Path,
    *,
    dtype: str,
    moments: bool,
    generator_only: bool,
    replace_detail: bool,
    license: str | None,
    report_to: str | None,
    overwrite: bool,
    step: int | str | None = None,
) -> None:
    """Converts weights and prints their description.

    Args:
        source: See `sources.read`.
        output: The file to write: a model file, `.safetensors`, or weights for MMagic, `.pth`.
        dtype: "float32" or "float16", the dtype of the networks in a model file.
        moments: Keep Adam's moments, if the source has them; only a model file can contain them.
        generator_only: Omit the discriminator and all moments, which inference does not need.
        replace_detail: Write into the model file that inpainting replaces the network's finest
            detail, see `inpaint.detail`; otherwise the source's metadata decide.
        license: License of the weights, written into the model file; None keeps the source's.
        report_to: File for a table with a line per tensor; "-" prints it, None omits it.
        overwrite: Replace `output` if it exists.
        step: Step of a run's checkpoint: a number, or "best"; the newest if None.

    Raises:
        UsageError: The source cannot be converted, or the output cannot be written.
        RunError: A run's checkpoint cannot be read now.
    """
    _check_output(output, dtype=dtype, moments=moments, overwrite=overwrite)
    read = sources.read(source, step=step)
    metadata = dict(read.model.metadata)
    if str(source) in trained.names():
        metadata |= parent.describe(source, metadata)
    known = metadata.get("license")
    if license:
        metadata["license"] = license
    if replace_detail:
        metadata["replace_detail"] = True
    model = dataclasses.replace(
        read.model,
        discriminator=None if generator_only else read.model.discriminator,
        moments=read.model.moments if moments else {},
        metadata=metadata,
    )
    if output.suffix == MMAGIC_SUFFIX:
        mmagic.write(output, model)
    else:
        weights.save(output, model, dtype=dtype)
    _report(dataclasses.replace(read, model=model), report_to)
    if license and known and license != known:
        print(f"The license of {source} was {known!r}; --license replaces it.")
    if read.model.moments and not (moments or generator_only):
        print("Adam's moments are omitted; --optimizer-state keeps them for further training.")
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def _check_output(output: Path, *, dtype: str, moments: bool, overwrite: bool) -> None:
    """Raises UsageError if the output exists, or its format cannot store the requested content."""
    if output.suffix not in (trained.SUFFIX, MMAGIC_SUFFIX):
        raise UsageError(
            f"The name of the output {output} must end in {trained.SUFFIX} for a model file, or in "
            f"{MMAGIC_SUFFIX} for MMagic."
        )
    if output.suffix == MMAGIC_SUFFIX and (moments or dtype != "float32"):
        raise UsageError(
            f"{output} is for MMagic, which takes float32 only and no optimizer state; omit "
            "--dtype and --optimizer-state."
        )
    if output.exists() and not overwrite:
        raise UsageError(f"{output} already exists; --overwrite replaces it.")


def _report(conversion: Conversion, table_to: str | None) -> None:
    """Writes the table of tensors to a file or prints it, and prints the description."""
    if table_to == "-":
        print(*report.table(conversion), sep="\n")
    elif table_to:
        with atomic_write(Path(table_to)) as unfinished:
            unfinished.write_text("".join(f"{line}\n" for line in report.table(conversion)))
    print(*report.lines(report.describe(conversion)), sep="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses a command line, `sys.argv[1:]` by default, and converts weights."""
    options = _parse(arguments)
    run_command(
        lambda: convert(
            options.source,
            options.output,
            dtype=options.dtype,
            moments=options.optimizer_state,
            generator_only=options.generator_only,
            replace_detail=options.replace_detail,
            license=options.license,
            report_to=options.report,
            overwrite=options.overwrite,
            step=run.parse_step(options.step),
        )
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("deepfill convert")
    parser.add_argument("source", help=MODEL_HELP)
    parser.add_argument("--offline", action=published.ForbidDownloads)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help=f"model file ({trained.SUFFIX}), or {MMAGIC_SUFFIX} for MMagic",
    )
    parser.add_argument(
        "--step",
        help="checkpoint of a run: a step, or best (by the run's config.best_metric); default: the "
        "newest",
    )
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--optimizer-state", action="store_true", help="keep Adam's moments: three times the size"
    )
    parts.add_argument(
        "--generator-only",
        action="store_true",
        help="omit the discriminator, which inference does not need",
    )
    parser.add_argument(
        "--replace-detail",
        action="store_true",
        help="let inpainting copy the finest detail of thick holes from the known pixels; for "
        "models that predict it badly, as after a short training",
    )
    parser.add_argument(
        "--license",
        metavar="TEXT",
        help="license of the weights, written into the model file; default: the source's",
    )
    parser.add_argument(
        "--report", metavar="FILE", help="write a table with a line per tensor; - prints it"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    run_command(lambda: renamed.refuse_old_flags(sys.argv if arguments is None else arguments))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
