"""Warnings about a training run, derived from its logged scalars; docs/losses.md explains them.

The input is what is on the host anyway: means over a log period, and validation scores.
"""

from collections.abc import Mapping

MIN_BATCH_SIZE = 8  # A smaller batch has too few scores to judge the discriminator by.
WON_HINGE = 0.05  # If both hinge losses are lower, every score is beyond the margin.
WON_PERIODS = 3
COLLAPSED_DISTANCE = 1e-3  # If both hinge losses are this close to 1, every score is 0.
COLLAPSED_PERIODS = 10  # Some random initialisations start there, so the limit is high.
WORSE_VALIDATIONS = 3
WORSE_RATIO = 1.02  # A hole L1 below this multiple of the best one is noise.


def small_batch(batch_size: int) -> str:
    """The warning that a batch is too small for a discriminator."""
    return (
        f"config.batch_size={batch_size} is small for a discriminator: its losses will be noisy "
        f"and it may win; use {MIN_BATCH_SIZE} or more, or config.loss.adversarial=0."
    )


class Health:
    """Warns when a problem begins, and again only if it ended and begins anew."""

    def __init__(self, *, batch_size: int):
        """Starts with no memory of earlier runs.

        Args:
            batch_size: Global batch size.
        """
        self._batch_size = batch_size
        self._active: set[str] = set()
        self._won = self._collapsed = 0  # Log periods in a row.
        self._best = self._last = float("inf")
        self._worse = 0  # Validations in a row.

    def training(self, means: Mapping[str, float]) -> list[str]:
        """Returns new warnings after a log period, given the means of the step's scalars."""
        if "hinge/real" not in means:  # The run trains no discriminator.
            return []
        hinges = means["hinge/real"], means["hinge/fake"]
        self._won = self._won + 1 if max(hinges) < WON_HINGE else 0
        zero = all(abs(hinge - 1) < COLLAPSED_DISTANCE for hinge in hinges)
        self._collapsed = self._collapsed + 1 if zero else 0
        warnings = [
            self._warn_once(
                "small", self._batch_size < MIN_BATCH_SIZE, small_batch(self._batch_size)
            ),
            self._warn_once(
                "won",
                self._won >= WON_PERIODS,
                f"The discriminator has won: both hinge losses were below {WON_HINGE} for "
                f"{self._won} log periods, so the generator learns little from it; raise "
                "config.loss.adversarial, or lower config.optimizer.learning_rate.",
            ),
            self._warn_once(
                "collapsed",
                self._collapsed >= COLLAPSED_PERIODS,
                f"The discriminator does not tell real from completed: its scores were 0 for "
                f"{self._collapsed} log periods; if the run has just begun, wait, else raise "
                "config.optimizer.learning_rate or start again with another config.seed.",
            ),
        ]
        return [warning for warning in warnings if warning]

    def validation(self, l1_hole: float) -> list[str]:
        """Returns new warnings after a validation, given its hole L1 in percent."""
        self._best = min(self._best, l1_hole)
        self._worse = self._worse + 1 if l1_hole > self._last else 0
        self._last = l1_hole
        warning = self._warn_once(
            "worse",
            self._worse >= WORSE_VALIDATIONS and l1_hole > WORSE_RATIO * self._best,
            f"Validation got worse {self._worse} times in a row: hole L1 {l1_hole:.4g}, its best "
            f"was {self._best:.4g}; stop, use more pictures, or lower "
            "config.optimizer.learning_rate.",
        )
        return [warning] if warning else []

    def _warn_once(self, name: str, holds: bool, warning: str) -> str | None:
        """Returns the warning if its condition holds now and did not hold before."""
        new = holds and name not in self._active
        (self._active.add if holds else self._active.discard)(name)
        return warning if new else None
