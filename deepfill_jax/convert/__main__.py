"""The command that makes a model file of a training run, or of another implementation's weights.

python -m deepfill_jax.convert SOURCE --output MODEL.safetensors [--dtype float16] [--report -]

And back: with `--output MODEL.pth` it writes weights that MMagic loads.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from deepfill_jax import renamed, trained, weights
from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert import MODEL_HELP, mmagic, parent, report, run, sources
from deepfill_jax.errors import UsageError, run_command

MMAGIC_SUFFIX = ".pth"


def convert(
    source: str | Path,
    output: Path,
    *,
    dtype: str,
    moments: bool,
    generator_only: bool,
    license: str | None,
    report_to: str | None,
    overwrite: bool,
    step: int | str | None = None,
) -> None:
    """Converts weights and prints what they are.

    Args:
        source: See `sources.read`.
        output: The file to write: a model file, `.safetensors`, or MMagic's `.pth`.
        dtype: "float32" or "float16", for the networks in a model file.
        moments: Keep what Adam remembers, if the source has it; only a model file holds it.
        generator_only: Leave the discriminator out, and all moments: filling needs neither.
        license: License of the weights, for the model file; None keeps the source's.
        report_to: File for a line about every tensor; "-" prints them.
        overwrite: `output` may be replaced.
        step: Of a run's checkpoint, a number or "best"; the newest if None.

    Raises:
        UsageError: The source cannot be converted, or the output not be written.
    """
    suffix = output.suffix
    if suffix not in (trained.SUFFIX, MMAGIC_SUFFIX):
        raise UsageError(
            f"{output} must end in {trained.SUFFIX}, as model files do, or in {MMAGIC_SUFFIX}, "
            "for MMagic."
        )
    if suffix == MMAGIC_SUFFIX and (moments or dtype != "float32"):
        raise UsageError(f"{output} is for MMagic: float32, and without --optimizer-state.")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists already; --overwrite replaces it.")
    conversion = sources.read(source, step=step)
    model = conversion.model
    left_out = model.moments and not (moments or generator_only)
    metadata = dict(model.metadata)
    if str(source) in trained.names():
        metadata |= parent.describe(source, metadata)
    known = metadata.get("license")
    if license:
        metadata["license"] = license
    model = dataclasses.replace(
        model,
        discriminator=None if generator_only else model.discriminator,
        moments=model.moments if moments else {},
        metadata=metadata,
    )
    conversion = dataclasses.replace(conversion, model=model)
    if suffix == MMAGIC_SUFFIX:
        mmagic.write(output, model)
    else:
        weights.save(output, model, dtype=dtype)
    if report_to == "-":
        print(*report.table(conversion), sep="\n")
    elif report_to:
        with atomic_write(Path(report_to)) as unfinished:
            unfinished.write_text("".join(f"{line}\n" for line in report.table(conversion)))
    print(*report.lines(report.describe(conversion)), sep="\n")
    if license and known and license != known:
        print(f"The license of {source} was {known!r}; --license replaces it.")
    if left_out:
        print("Adam's moments are left out; --optimizer-state keeps them, to go on training.")
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def main(arguments: Sequence[str] | None = None) -> None:
    """Converts the weights that the command line names."""
    parser = argparse.ArgumentParser("deepfill convert")
    parser.add_argument(
        "source",
        help=MODEL_HELP,
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help=f"model file ({trained.SUFFIX}), or {MMAGIC_SUFFIX} for MMagic",
    )
    parser.add_argument(
        "--step",
        help="checkpoint of a run, by its number, or best, by the run's config.best_metric; "
        "default: the newest",
    )
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--optimizer-state", action="store_true", help="keep Adam's moments: three times the size"
    )
    parts.add_argument(
        "--generator-only",
        action="store_true",
        help="leave the discriminator out, which filling does not need",
    )
    parser.add_argument(
        "--license",
        metavar="TEXT",
        help="license of the weights, written into the model file; default: the source's",
    )
    parser.add_argument(
        "--report", metavar="FILE", help="write a line about every tensor; - prints them"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    run_command(lambda: renamed.refuse_old_flags(sys.argv if arguments is None else arguments))
    options = parser.parse_args(arguments)
    run_command(
        lambda: convert(
            options.source,
            options.output,
            dtype=options.dtype,
            moments=options.optimizer_state,
            generator_only=options.generator_only,
            license=options.license,
            report_to=options.report,
            overwrite=options.overwrite,
            step=run.parse_step(options.step),
        )
    )


if __name__ == "__main__":
    main()
