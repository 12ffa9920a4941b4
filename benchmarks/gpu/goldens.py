"""Compares this machine's device with the outputs of the reference implementations.

    PYTHONPATH=.:benchmarks:tests python benchmarks/gpu/goldens.py [--output FILE]

The script runs the tests of the networks, the attention, losses, gradients and training steps
against tests/golden in float32; the exit code is 1 if one fails. It then prints JSON lines with the
differences of both architectures' generators from the references in float32, TF32 and bfloat16.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import programs
import references
from references import golden, nhwc, rgb

from deepfill_jax import image
from deepfill_jax.models import MMAGIC, OFFICIAL, Generator

TESTS = Path(references.__file__).parent
GENERATORS = {
    # Golden file: architecture, and a function that returns its weights.
    "gen_g22_b2_72x72": (MMAGIC, references.mmagic_model),
    "tf_gen_g22_b1_64x64": (OFFICIAL, references.official_model),
}


def run_tests(chosen: str) -> bool:
    """Runs the golden tests in a separate process, because they configure JAX themselves."""
    files = [str(TESTS / f"test_{name}.py") for name in ("models", "attention", "steps")]
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", chosen, *files]
    environment = os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    return subprocess.run(command, env=environment, cwd=TESTS.parent).returncode == 0


def differences(variant, params, arrays: dict, dtype) -> dict[str, dict[str, float]]:
    """Returns the largest and mean absolute difference of both stages' outputs in [-1, 1]."""
    mask = nhwc(arrays["mask"])
    inputs = rgb(arrays["masked" if "masked" in arrays else "image"])
    network = Generator(variant, dtype)
    predicted = jax.jit(network.apply)({"params": params}, image.mask_out(inputs, mask), mask)
    result = {}
    for name, stage in (("coarse", "stage1"), ("refined", "stage2")):
        difference = np.abs(getattr(predicted, name) - rgb(arrays[stage]))
        result[name] = {"largest": float(difference.max()), "mean": float(difference.mean())}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="file to which JSON lines are appended")
    parser.add_argument(
        "--tests", default="matches_mmagic or matches_tf1_release", help="expression of pytest's -k"
    )
    parser.add_argument("--goldens", nargs="*", choices=GENERATORS, default=list(GENERATORS))
    options = parser.parse_args()
    passed = run_tests(options.tests)
    programs.report(options.output, tests=options.tests, passed=passed, **programs.machine())
    for name in options.goldens:
        variant, model = GENERATORS[name]
        for precision, (dtype, rounding) in programs.PRECISIONS.items():
            with jax.default_matmul_precision(rounding):
                figures = differences(variant, model().generator, golden(name), dtype)
            programs.report(options.output, golden=name, precision=precision, **figures)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
