"""Plots docs/losses.png from the event files of runs, with one column per run.

python benchmarks/losses.py "TITLE=WORKDIR" ["TITLE=WORKDIR" ...]
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from deepfill_jax.evaluate import event_files

FIGURE = Path(__file__).parents[1] / "docs" / "losses.png"
ROWS = (("hinge/real", "hinge/fake"), ("l1/coarse/hole", "l1/refined/hole", "loss/adversarial"))


def main() -> None:
    """Runs the command."""
    runs = [argument.rsplit("=", 1) for argument in sys.argv[1:]]
    figure, axes = plt.subplots(
        len(ROWS), len(runs), figsize=(4.5 * len(runs), 5), squeeze=False, sharey="row"
    )
    for column, (title, workdir) in enumerate(runs):
        curves = event_files.read(workdir)
        axes[0, column].set_title(title, fontsize=10)
        axes[-1, column].set_xlabel("step")
        for axis, names in zip(axes[:, column], ROWS, strict=True):
            for name in names:
                axis.plot(*curves[f"train/{name}"], label=name, linewidth=1)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8, loc="best")
        axes[0, column].axhline(1, color="grey", linewidth=0.8, linestyle="--")
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=72, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
