"""What the log of a training says of its health: docs/losses.md explains it to people.

It judges means over a log period that are on the host already, and validations.
"""

from collections.abc import Mapping

SMALL_BATCH = 8  # Below it the discriminator sees too few scores to be judged by one batch.
WON = 0.05  # Both hinges below it: every score is beyond the margin, on the right side.
WON_PERIODS = 3
COLLAPSED = 1e-3  # Both hinges this near to 1: every score is 0.
COLLAPSED_PERIODS = 10  # Many, as some initial parameters start there.
WORSE_VALIDATIONS = 3
WORSE = 1.02  # Times the best hole L1, below which getting worse is noise.


def small_batch(batch_size: int) -> str:
    """The warning that a discriminator has few examples to learn from."""
    return (
        f"config.batch_size={batch_size} is small for a discriminator: its losses will be noisy "
        f"and it may win; use {SMALL_BATCH} or more, or config.loss.adversarial=0."
    )


class Health:
    """Warns when something begins to go wrong, and again only after it had passed."""

    def __init__(self, *, batch_size: int):
        """Begins a run, or goes on with one: nothing is remembered from before.

        Args:
            batch_size: Global.
        """
        self._batch_size = batch_size
        self._holding: set[str] = set()
        self._won = self._collapsed = 0  # Log periods in a row.
        self._best = self._last = float("inf")
        self._worse = 0  # Validations in a row.

    def training(self, means: Mapping[str, float]) -> list[str]:
        """Judges the means of a log period, by their names in step.py; returns new warnings."""
        if "hinge/real" not in means:  # There is no discriminator.
            return []
        hinges = means["hinge/real"], means["hinge/fake"]
        self._won = self._won + 1 if max(hinges) < WON else 0
        zero = all(abs(hinge - 1) < COLLAPSED for hinge in hinges)
        self._collapsed = self._collapsed + 1 if zero else 0
        told = [
            self._told("small", self._batch_size < SMALL_BATCH, small_batch(self._batch_size)),
            self._told(
                "won",
                self._won >= WON_PERIODS,
                f"The discriminator has won: both hinge losses were below {WON} for {self._won} "
                "log periods, and the generator learns little from it; raise "
                "config.loss.adversarial, or lower config.optimizer.learning_rate.",
            ),
            self._told(
                "collapsed",
                self._collapsed >= COLLAPSED_PERIODS,
                f"The discriminator does not tell real from completed: its scores were 0 for "
                f"{self._collapsed} log periods; if the run has just begun, wait, else raise "
                "config.optimizer.learning_rate or start anew with another config.seed.",
            ),
        ]
        return [warning for warning in told if warning]

    def validation(self, l1_hole: float) -> list[str]:
        """Judges the hole L1 of a validation; returns new warnings."""
        self._best = min(self._best, l1_hole)
        self._worse = self._worse + 1 if l1_hole > self._last else 0
        self._last = l1_hole
        warning = self._told(
            "worse",
            self._worse >= WORSE_VALIDATIONS and l1_hole > WORSE * self._best,
            f"Validation got worse {self._worse} times in a row: hole L1 {l1_hole:.4g}, its best "
            f"was {self._best:.4g}; stop, use more pictures, or lower "
            "config.optimizer.learning_rate.",
        )
        return [warning] if warning else []

    def _told(self, name: str, holds: bool, warning: str) -> str | None:
        """Returns the warning if it holds and did not before."""
        new = holds and name not in self._holding
        (self._holding.add if holds else self._holding.discard)(name)
        return warning if new else None
