"""The doctor's visit: every check in order, a line for each finding."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from deepfill_jax.doctor import machine, memory, pictures, training
from deepfill_jax.doctor.case import OK, SKIPPED, WARNING, WRONG, Case, Check, Finding, SkippedError
from deepfill_jax.errors import RunError, UsageError

# In order: later ones need what earlier ones found.
CHECKS: dict[str, Check] = {
    "devices": machine.devices,
    "versions": machine.versions,
    "workdir": machine.workdir,
    "settings": training.settings,
    "tensorflow": pictures.tensorflow_leaves_gpus,
    "pictures": pictures.training_pictures,
    "validation": pictures.validation_pictures,
    "masks": pictures.hole_masks,
    "batch": pictures.batch,
    "memory": memory.memory,
    "speed": training.speed,
    "overfit": training.overfit,
}


def examine(config: ConfigDict, workdir: str | Path) -> Iterator[tuple[str, Finding]]:
    """Yields what each check finds, with the check's name; one that fails stops no other."""
    case = Case(config, Path(workdir).expanduser())
    told = set()
    for name, check in CHECKS.items():
        try:
            for finding in check(case):
                yield name, finding
        except SkippedError as error:
            yield name, Finding(SKIPPED, f"{error}")
        except Exception as error:  # What XLA or a library raises is what a doctor is to find.
            reason = _reason(error)
            again = Finding(SKIPPED, "fails for the same reason as a check above.")
            yield name, again if reason in told else Finding(WRONG, reason)
            told.add(reason)


def _reason(error: Exception) -> str:
    if isinstance(error, UsageError):
        return f"{error}"
    return f"failed with {type(error).__name__}: {f'{error}'.strip().partition(chr(10))[0][:300]}"


def run(config: ConfigDict, workdir: str | Path) -> None:
    """Prints the findings and a summary.

    Raises:
        RunError: Something is wrong.
    """
    counts = Counter()
    for name, finding in examine(config, workdir):
        counts[finding.level] += 1
        print(f"{finding.level:<8} {name:<11} {finding.text}", flush=True)
    listed = ", ".join(f"{counts[level]} {level}" for level in (OK, WARNING, WRONG, SKIPPED))
    print(f"{listed}. What the losses of a run mean: docs/losses.md.", flush=True)
    if counts[WRONG]:
        raise RunError(f"{counts[WRONG]} wrong: each line above says what to do.")
