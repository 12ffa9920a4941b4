"""Measures peak memory and time of completing one picture, each size in a process of its own.

    python benchmarks/memory.py [--sizes 256 512 1024 2048] [--architecture official] [--width 24]

Prints one JSON line a size: the process's peak (Python, JAX and weights included), the peak before
the network ran, seconds of the first run, compiling included, and of a second if that was short.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # Bytes of `ru_maxrss`.


def peak_gigabytes() -> float:
    """The process's largest resident size so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / 1e9, 2)


def measure(size: int, architecture: str, width: int) -> dict:
    """Completes a square picture, whole, with drawn weights."""
    import jax
    import numpy as np

    from deepfill_jax import Inpainter, weights
    from deepfill_jax.models import make_variant

    variant = make_variant(architecture, width=width)
    random = np.random.default_rng(0)
    shapes = weights.expected_tensors(variant, discriminator=False)
    tensors = {name: 0.05 * random.normal(size=shape) for name, shape in shapes.items()}
    tree = weights.unflatten({name: x.astype(np.float32) for name, x in tensors.items()})
    inpainter = Inpainter(weights.Model(variant, tree["generator"]))
    image = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    mask = np.zeros((size, size, 1), bool)
    mask[size // 4 : size // 2, size // 4 : size // 2] = True
    result = {"architecture": architecture, "size": size, "before_gb": peak_gigabytes()}
    for name in ("first_s", "second_s"):
        if result.get("first_s", 0) < 60:  # Else, compiling is a small part of it.
            start = time.monotonic()
            inpainter(image, mask, strategy="original")
            result[name] = round(time.monotonic() - start, 2)
    return {**result, "peak_gb": peak_gigabytes(), "jax": jax.__version__}


def main() -> None:
    """Measures the sizes that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--architecture", default="official")
    parser.add_argument("--width", type=int, default=24)
    options = parser.parse_args()
    if len(options.sizes) == 1:
        print(json.dumps(measure(options.sizes[0], options.architecture, options.width)))
        return
    same = ["--architecture", options.architecture, "--width", str(options.width)]
    for size in options.sizes:
        subprocess.run([sys.executable, __file__, "--sizes", str(size), *same], check=True)


if __name__ == "__main__":
    main()
