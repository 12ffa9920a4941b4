"""Keeps the best checkpoints."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass
class KeepBest:
    """Preservation policy for the best checkpoints; Orbax's own loses the metrics on restart."""

    best_steps: Callable[[], Sequence[int]]

    def should_preserve(self, infos: Sequence[Any], *, context: Any) -> list[bool]:
        """Tells Orbax which of the checkpoints to keep."""
        best = self.best_steps()
        return [info.step in best for info in infos]
