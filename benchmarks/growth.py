"""Measures and plots time and memory over image size, batch size and number of devices.

    pip install matplotlib
    python benchmarks/growth.py [--sizes 256 512 1024 2048] [--batches 1 2 4 8] [--devices 1 2]

Sizes and batch sizes are measured with inference, devices with training steps of 8 images of 64 px.
Each measurement runs `speed.py` in a separate process. On a CPU, devices share the same cores. The
script prints JSON lines and writes growth.png.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

SPEED = Path(__file__).with_name("speed.py")


def measure(case: str, options: argparse.Namespace, devices: int = 1) -> dict:
    """Returns the measurements of `speed.py` for a case."""
    command = [sys.executable, SPEED, "--here", "--cases", case, "--rounds", str(options.rounds)]
    command += ["--architecture", options.architecture, "--width", str(options.width)]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    line = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    print(line, end="", flush=True)
    return json.loads(line)


def plot(growths: dict[str, tuple[list[int], list[dict]]], path: Path) -> None:
    """Plots seconds and gigabytes over each quantity, on logarithmic axes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(growths), figsize=(4 * len(growths), 6), squeeze=False)
    for column, (name, (values, results)) in enumerate(growths.items()):
        seconds = [result["seconds"]["median"] for result in results]
        gigabytes = [result["peak_gb"] for result in results]
        for axis, numbers, unit in zip(
            axes[:, column], (seconds, gigabytes), ("s", "GB"), strict=True
        ):
            axis.loglog(values, numbers, "o-")
            axis.margins(x=0.12)
            axis.set(xlabel=name, ylabel=unit, ylim=(min(numbers) / 2, max(numbers) * 2))
            axis.set_xticks(values, [str(value) for value in values])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            for point in zip(values, numbers, strict=True):
                above = {"textcoords": "offset points", "xytext": (0, 7), "ha": "center"}
                axis.annotate(f"{point[1]:.3g}", point, **above)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512, 1024, 2048])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--devices", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--architecture", default="mmagic")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("growth.png"))
    options = parser.parse_args()
    growths = {
        "image side in pixels": (
            options.sizes,
            [measure(f"inference-{size}-1", options) for size in options.sizes],
        ),
        "batch of 256 px images": (
            options.batches,
            [measure(f"inference-256-{batch}", options) for batch in options.batches],
        ),
        "devices": (
            options.devices,
            [measure("training-64-8", options, devices) for devices in options.devices],
        ),
    }
    plot({name: growth for name, growth in growths.items() if growth[0]}, options.output)


if __name__ == "__main__":
    main()
