"""Checks this machine's device against the outputs of the reference implementations.

    PYTHONPATH=.:benchmarks:tests python benchmarks/gpu/goldens.py [--output FILE]

Runs the tests of the networks, the attention, losses, gradients and training steps against
tests/golden, in float32; the exit code is 1 if one fails. Then prints lines of JSON: how far both
forms of the generator are from the references in float32, TF32 and bfloat16.
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
    # Golden: architecture, and its weights.
    "gen_g22_b2_72x72": (MMAGIC, references.mmagic_model),
    "tf_gen_g22_b1_64x64": (OFFICIAL, references.official_model),
}


def run_tests(chosen: str) -> bool:
    """Runs the golden tests in a process of their own, as they set JAX up for themselves."""
    files = [str(TESTS / f"test_{name}.py") for name in ("models", "attention", "steps")]
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", chosen, *files]
    environment = os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    return subprocess.run(command, env=environment, cwd=TESTS.parent).returncode == 0


def differences(variant, params, arrays: dict, dtype) -> dict[str, dict[str, float]]:
    """Largest and mean absolute difference of both stages, which are in [-1, 1]."""
    mask = nhwc(arrays["mask"])
    seen = rgb(arrays["masked" if "masked" in arrays else "image"])
    network = Generator(variant, dtype)
    predicted = jax.jit(network.apply)({"params": params}, image.mask_out(seen, mask), mask)
    result = {}
    for name, stage in (("coarse", "stage1"), ("refined", "stage2")):
        difference = np.abs(getattr(predicted, name) - rgb(arrays[stage]))
        result[name] = {"largest": float(difference.max()), "mean": float(difference.mean())}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="a file to which lines of JSON are added")
    parser.add_argument(
        "--tests", default="matches_mmagic or matches_tf1_release", help="which, as pytest's -k"
    )
    parser.add_argument("--goldens", nargs="*", choices=GENERATORS, default=list(GENERATORS))
    options = parser.parse_args()
    passed = run_tests(options.tests)
    programs.report(options.output, tests=options.tests, passed=passed, **programs.machine())
    for name in options.goldens:
        variant, model = GENERATORS[name]
        for precision, (dtype, rounding) in programs.PRECISIONS.items():
            with jax.default_matmul_precision(rounding):
                found = differences(variant, model().generator, golden(name), dtype)
            programs.report(options.output, golden=name, precision=precision, **found)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
