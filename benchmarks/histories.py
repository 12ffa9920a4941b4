"""The losses and times of training runs over their steps: figures, tables and a plot."""

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers.protocol import Results
from programs import spread

BLOCK = 10  # Number of steps after which the sides alternate.
COMPARED = (1, 10, 100, 300)  # Steps whose losses are in the table.
LAST = 100  # Number of final steps whose mean losses are in the table.
KEPT_EVERY = 10  # Interval of the steps whose losses are stored, besides the first step.
PLOTTED = {
    "l1/refined/hole": "L1 of the hole, second stage",
    "l1/coarse/hole": "L1 of the hole, first stage",
    "l1/refined/known": "L1 of the known pixels, second stage",
    "hinge/real": "hinge loss, real images",
    "hinge/fake": "hinge loss, completed images",
}


class History(NamedTuple):
    """The training history of one side, over N steps."""

    losses: dict[str, np.ndarray]  # Losses of each step, [N].
    seconds: np.ndarray  # Wall-clock time of each step, [N].
    cpu_seconds: np.ndarray  # CPU time of each step over all cores, [N].
    weights: Results  # Final weights, by the side's own names.
    versions: str


def block_ratios(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """Returns the ratios of the blocks' median times, without the first block, which compiles."""
    medians = [
        [statistics.median(x[first : first + BLOCK]) for first in range(BLOCK, len(x), BLOCK)]
        for x in (ours, theirs)
    ]
    return [a / b for a, b in zip(*medians, strict=True)]


def differences(first: History, second: History, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns the relative differences of the losses at each step."""
    return {name: np.abs(first.losses[name] / second.losses[name] - 1) for name in names}


def summarise(ours: History, theirs: History, nudged: History) -> dict[str, Any]:
    """Returns the figures of the runs that are stored."""

    def rounded(values, digits):
        return [float(f"{x:.{digits}g}") for x in values]

    def at_compared(drift):
        steps = [step for step in COMPARED if step <= count]
        rows = {name: rounded(x[np.array(steps) - 1], 2) for name, x in drift.items()}
        return {name: dict(zip(map(str, steps), row, strict=True)) for name, row in rows.items()}

    both = sorted(ours.losses.keys() & theirs.losses.keys())
    count = len(ours.seconds)
    kept = [1, *range(KEPT_EVERY, count + 1, KEPT_EVERY)]
    places = np.array(kept) - 1
    return {
        "versions": [ours.versions, theirs.versions],
        "seconds": {
            "ours": spread(ours.seconds[1:]),
            "theirs": spread(theirs.seconds[1:]),
            "ratio": spread(block_ratios(ours.seconds, theirs.seconds)),
            "first": rounded((ours.seconds[0], theirs.seconds[0]), 4),
            "total": rounded((ours.seconds.sum(), theirs.seconds.sum()), 4),
        },
        "cpu_seconds": {
            "ours": spread(ours.cpu_seconds[1:]),
            "theirs": spread(theirs.cpu_seconds[1:]),
            "ratio": spread(block_ratios(ours.cpu_seconds, theirs.cpu_seconds)),
        },
        "differences": at_compared(differences(ours, theirs, both)),
        "by_rounding": at_compared(differences(nudged, ours, both)),
        "means": {
            name: rounded((ours.losses[name][-LAST:].mean(), theirs.losses[name][-LAST:].mean()), 4)
            for name in both
        },
        "steps": kept,
        "losses": {
            side: {name: rounded(history.losses[name][places], 5) for name in both}
            for side, history in (("ours", ours), ("theirs", theirs))
        },
    }


def plot(ours: History, theirs: History, nudged: History, path: Path) -> None:
    """Plots the losses of both sides, and their differences."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), sharex=True)
    steps = np.arange(1, len(ours.seconds) + 1)
    for axis, (name, title) in zip(axes.flat, PLOTTED.items(), strict=False):
        axis.plot(steps, theirs.losses[name], color="#f2a65a", linewidth=3.5, label="MMagic")
        axis.plot(steps, ours.losses[name], color="#123c69", linewidth=0.9, label="deepfill_jax")
        axis.set_title(title, fontsize=10)
    l1 = [name for name in PLOTTED if name.startswith("l1/")]
    for first, second, label, colour in (
        (ours, theirs, "between the two", "#123c69"),
        (nudged, ours, "by rounding alone", "#9a9a9a"),
    ):
        largest = np.max(list(differences(first, second, l1).values()), axis=0)
        axes.flat[-1].semilogy(steps, largest, color=colour, linewidth=0.9, label=label)
    axes.flat[-1].set_title("largest relative difference of these L1 terms", fontsize=10)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    axes.flat[-1].legend()
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def tables(results: dict[str, Any]) -> Iterator[str]:
    """Yields Markdown lines: scores, times and losses.

    The differences caused by rounding alone are in brackets.
    """
    yield "| weights | hole L1 | PSNR | SSIM |"
    yield "|---|---|---|---|"
    for name, score in results["scores"].items():
        cells = (
            f"{score[metric]['mean']:.{digits}f} ± {score[metric]['standard_error']:.{digits}f}"
            for metric, digits in (("l1_hole", 3), ("psnr", 3), ("ssim", 4))
        )
        yield f"| {' | '.join((name, *cells))} |"
    yield ""
    for unit in ("seconds", "cpu_seconds"):
        for name, x in results[unit].items():
            yield f"{unit}, {name}: {x}"
    yield ""
    steps = next(iter(results["differences"].values()))
    columns = *(f"step {step}" for step in steps), "ours, mean", "theirs, mean"
    yield f"| loss | {' | '.join(columns)} |"
    yield "|---" * (1 + len(columns)) + "|"
    for name, row in results["differences"].items():
        cells = [f"{x:.0e} ({results['by_rounding'][name][step]:.0e})" for step, x in row.items()]
        yield f"| {' | '.join((name, *cells, *map(str, results['means'][name])))} |"
