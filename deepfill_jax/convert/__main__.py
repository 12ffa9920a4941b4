"""The command that makes a model file of a training run, or of another implementation's weights.

python -m deepfill_jax.convert SOURCE --output MODEL.safetensors [--dtype float16]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax

from deepfill_jax import weights
from deepfill_jax.convert import mmagic, run
from deepfill_jax.errors import UsageError, run_command

READERS = {".pth": mmagic.read, ".pt": mmagic.read}
SUFFIX = ".safetensors"


def convert(source: Path, output: Path, *, dtype: str, overwrite: bool) -> None:
    """Converts weights and prints what they are.

    Args:
        source: The folder of a run, for its newest checkpoint; or a file of MMagic, `.pth`, `.pt`.
        output: The model file to write, `.safetensors`.
        dtype: "float32" or "float16", for the generator.
        overwrite: `output` may be replaced.

    Raises:
        UsageError: The source cannot be converted, or the output not be written.
    """
    reader = run.read if source.is_dir() else READERS.get(source.suffix.lower())
    if reader is None:
        raise UsageError(
            f"{source} is no known source of weights; known are the folders of training runs and "
            f"MMagic's files, {' or '.join(READERS)}."
        )
    if output.suffix != SUFFIX:
        raise UsageError(f"{output} must end in {SUFFIX}, as model files do.")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists already; --overwrite replaces it.")
    model = reader(source)
    weights.save(output, model, dtype=dtype)
    print(f"architecture   {model.variant.name}")
    print(f"generator      {_parameters(model.generator)}")
    discriminator = model.discriminator
    print(f"discriminator  {_parameters(discriminator['params']) if discriminator else 'none'}")
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def _parameters(tree: weights.PyTree) -> str:
    return f"{sum(x.size for x in jax.tree.leaves(tree)):,} parameters"


def main(arguments: Sequence[str] | None = None) -> None:
    """Converts the weights that the command line names."""
    parser = argparse.ArgumentParser("python -m deepfill_jax.convert")
    parser.add_argument("source", type=Path, help="folder of a run, or MMagic's .pth")
    parser.add_argument("--output", type=Path, required=True, help=f"model file ({SUFFIX})")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    options = parser.parse_args(arguments)
    run_command(
        lambda: convert(
            options.source, options.output, dtype=options.dtype, overwrite=options.overwrite
        )
    )


if __name__ == "__main__":
    main()
