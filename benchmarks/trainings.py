"""Records a model's training: the config and the validation curves of each stage, with a plot.

    pip install '.[train]' matplotlib
    python benchmarks/trainings.py NAME RUN [RUN ...] [--append]

The RUNs are the workdirs of the stages, in order; `--append` adds them to the recorded stages. The
script writes results/trainings/NAME.json and NAME.png, a plot of the validation hole L1 over the
hours of training, on a machine that may have been busy with other work too.
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
    """Returns the config, hours and validation scores of one run."""
    config = (run / "config.json").read_text()
    # Only the last two parts of paths are kept, as the rest depends on the machine.
    config = json.loads(re.sub(r'/[^":]*/([^"/]+/[^"/]+)"', r'\1"', config))
    curves = event_files.read(run)
    speed = curves["speed/steps_per_second"]
    hours = np.cumsum(np.diff(speed.steps, prepend=0) / speed.values) / 3600
    scores = {name: curves[tag] for tag, name in SCORES.items() if tag in curves}
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
    """Plots hole L1 over hours, with one line per stage."""
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
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--append", action="store_true", help="add to the recorded stages")
    options = parser.parse_args(arguments)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{options.name}.json"
    kept = json.loads(path.read_text()) if options.append else []
    stages = kept + [read_stage(run) for run in options.runs]
    path.write_text(json.dumps(stages, indent=1) + "\n")
    plot(stages, RESULTS / f"{options.name}.png")


if __name__ == "__main__":
    main()
