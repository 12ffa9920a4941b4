"""Keeps what a model's training was: config, seed and curves of each stage, with a plot.

    pip install '.[train]' matplotlib
    python benchmarks/trainings.py NAME RUN [RUN ...] [--append]

RUNs are the folders of the stages, in their order; `--append` puts them after those that are kept.
Writes results/trainings/NAME.json and NAME.png: the hole L1 of the validation pictures over the
hours that the machine trained, which had other work too.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np

from deepfill_jax.evaluate import event_files

RESULTS = Path(__file__).parent / "results" / "trainings"
SCORES = {"eval/l1_hole": "l1_hole", "eval/psnr": "psnr", "eval/ssim": "ssim"}


def read_stage(run):
    """Config, hours and validation scores of one run."""
    config = (run / "config.json").read_text()
    # Of paths the last two parts, as the rest is where this machine has its files.
    config = json.loads(re.sub(r'/[^":]*/([^"/]+/[^"/]+)"', r'\1"', config))
    found = event_files.read(run)
    speed = found["speed/steps_per_second"]
    hours = np.cumsum(np.diff(speed.steps, prepend=0) / speed.values) / 3600
    scores = {ours: found[tag] for tag, ours in SCORES.items() if tag in found}
    steps = next(iter(scores.values())).steps if scores else np.array([], int)
    return {
        "config": config,
        "steps": int(speed.steps[-1]),
        "hours": float(hours[-1]),
        "validation": {
            "step": steps.tolist(),
            "hours": np.interp(steps, speed.steps, hours).round(4).tolist(),
            **{name: np.round(curve.values, 4).tolist() for name, curve in scores.items()},
        },
    }


def plot(stages, path):
    """Draws hole L1 over hours, a line for each stage."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    before = 0
    for stage in stages:
        scores, config = stage["validation"], stage["config"]
        label = f"{config['image_size']} px, {stage['steps']:,} steps of {config['batch_size']}"
        axes.plot(before + np.array(scores["hours"]), scores["l1_hole"], "o-", label=label)
        before += stage["hours"]
    axes.set(xlabel="hours of training", ylabel="hole L1, per cent")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main(arguments=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--append", action="store_true", help="after the stages that are kept")
    options = parser.parse_args(arguments)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{options.name}.json"
    kept = json.loads(path.read_text()) if options.append else []
    stages = kept + [read_stage(run) for run in options.runs]
    path.write_text(json.dumps(stages, indent=1) + "\n")
    plot(stages, RESULTS / f"{options.name}.png")


if __name__ == "__main__":
    main()
