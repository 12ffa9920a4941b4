"""The command that exports a model file.

python -m deepfill_jax.export MODEL.safetensors --output FILE.stablehlo [--platforms cpu,cuda]
python -m deepfill_jax.export MODEL.safetensors --output FILE.onnx [--opset 17] [--dtype float16]
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepfill_jax import compile_cache, compiler, published, weights
from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert import MODEL_HELP, sources
from deepfill_jax.errors import RunError, UsageError, run_command
from deepfill_jax.export import onnx, onnx_stepwise, stablehlo
from deepfill_jax.inpaint.inpainter import Inpainter

FORMATS = {".stablehlo": stablehlo, ".onnx": onnx}
OPTIONS = {".stablehlo": {"platforms", "weights"}, ".onnx": {"opset", "dtype"}}
CHECK_SHAPES = ((1, 88, 128), (2, 104, 72))  # Batch, height, width.


def export(source: str | Path, output: Path, *, overwrite: bool, options: dict[str, Any]) -> None:
    """Exports a model file, compares the exported function with the model, and prints a summary.

    Args:
        source: The model, see `convert.sources.read`.
        output: The file to write; its suffix is one of `FORMATS`.
        overwrite: Whether an existing `output` is replaced.
        options: Arguments of the format's `save`; their names are in `OPTIONS`.

    Raises:
        UsageError: The model cannot be read, the output cannot be written, or an option is not
            supported by the format.
        RunError: The exported function differs from the model; the file is deleted.
    """
    if output.suffix not in FORMATS:
        raise UsageError(f"{output} must end in {' or '.join(FORMATS)}.")
    if foreign := options.keys() - OPTIONS[output.suffix]:
        flags = ", ".join(f"--{name}" for name in sorted(foreign))
        raise UsageError(f"{flags} is not supported for {output.suffix}; leave it out.")
    platform = jax.export.default_export_platform()
    if platform not in options.get("platforms", (platform,)):
        raise UsageError(
            f"--platforms must include {platform}, because the exported file is checked on it."
        )
    if output.exists() and not overwrite:
        raise UsageError(f"{output} already exists; --overwrite replaces it.")
    model = sources.read(source).model
    kind = FORMATS[output.suffix]
    with atomic_write(output) as unfinished:
        kind.save(unfinished, model, **options)
        is_half = options.get("dtype") == "float16"
        complete = (onnx_stepwise if is_half else kind).load(unfinished)
        if options.get("weights") == "separate":
            complete = functools.partial(complete, stablehlo.tensors_of(model))
        difference = largest_difference(complete, model)
        tolerance = onnx.HALF_TOLERANCE if is_half else kind.TOLERANCE
        if not difference <= tolerance:  # Written this way, NaN is an error too.
            raise RunError(
                f"{output} is not written: its outputs differ from those of {source} by "
                f"{difference:.1e}, more than {tolerance:.0e}."
            )
    shapes = " and ".join("x".join(map(str, shape)) for shape in CHECK_SHAPES)
    print(f"architecture  {model.variant.name}")
    print(f"difference    {difference:.1e} from the model, at {shapes}")
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def largest_difference(complete: Callable, model: weights.Model) -> float:
    """Compares an exported function with its model, on noise images with a hole.

    The images have the shapes of `CHECK_SHAPES`, which are not used during the export.

    Args:
        complete: Function of image, mask and, if guided, sketch.
        model: The model.

    Returns:
        The largest absolute difference of pixel values in [-1, 1].
    """
    inpainter = Inpainter(model)
    rng = np.random.default_rng(0)
    differences = []
    for batch, height, width in CHECK_SHAPES:
        image = rng.uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)
        mask = np.zeros((batch, height, width, 1), np.float32)
        mask[:, height // 4 : height // 2, width // 3 : -width // 5] = 1
        inputs = [image, mask]
        if inpainter.guided:
            inputs.append(rng.uniform(0, 1, mask.shape).astype(np.float32))
        # Exported files cannot use most algorithms for CPUs, because their sizes are free.
        with compiler.use_form("default"):
            expected = inpainter.predict(*inputs).completed
        differences.append(np.abs(np.asarray(complete(*inputs)) - expected).max())
    return float(np.max(differences))


def main(arguments: Sequence[str] | None = None) -> None:
    """Exports the model file named on the command line."""
    parser = argparse.ArgumentParser("deepfill export", argument_default=argparse.SUPPRESS)
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--offline", action=published.ForbidDownloads)
    parser.add_argument(
        "--output", type=Path, required=True, help=f"file to write ({' or '.join(FORMATS)})"
    )
    parser.add_argument(
        "--platforms",
        type=lambda names: tuple(names.split(",")),
        help=f"for .stablehlo: comma-separated, of {', '.join(stablehlo.PLATFORMS)} "
        "(default: cpu,cuda)",
    )
    parser.add_argument(
        "--weights",
        choices=("baked", "separate"),
        help="for .stablehlo: weights inside the file, or as the function's first argument "
        "(default: baked)",
    )
    parser.add_argument(
        "--opset",
        type=int,
        help=f"for .onnx: {onnx.OPSETS[0]} to {onnx.OPSETS[-1]} (default: 17)",
    )
    parser.add_argument(
        "--dtype",
        choices=onnx.DTYPES,
        help="for .onnx: type of the convolutions; inputs, output, attention and norms are float32 "
        "(default: float32)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", default=False, help="replace an existing file"
    )
    options = vars(parser.parse_args(arguments))
    model, output, overwrite = (options.pop(name) for name in ("model", "output", "overwrite"))

    def run() -> None:
        compile_cache.enable()
        export(model, output, overwrite=overwrite, options=options)

    run_command(run)


if __name__ == "__main__":
    main()
