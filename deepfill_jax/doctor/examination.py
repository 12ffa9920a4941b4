"""Runs all checks in order and prints a line for each finding."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from deepfill_jax import compile_cache
from deepfill_jax.doctor import machine, memory, pictures, training
from deepfill_jax.doctor.case import ERROR, OK, SKIPPED, WARNING, Case, Check, Finding, SkippedError
from deepfill_jax.errors import RunError, UsageError

# The order matters, because later checks need results of earlier ones.
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
    """Yields the findings of all checks, with the check's name.

    A check that raises an exception does not stop the others: the exception becomes a finding.
    """
    case = Case(config, Path(workdir).expanduser())
    reported: set[str] = set()
    for name, check in CHECKS.items():
        try:
            for finding in check(case):
                yield name, finding
        except SkippedError as error:
            yield name, Finding(SKIPPED, f"{error}")
        except Exception as error:  # Errors of XLA and other libraries are findings too.
            reason = _reason(error)
            repeated = Finding(SKIPPED, "fails for the same reason as a check above.")
            yield name, repeated if reason in reported else Finding(ERROR, reason)
            reported.add(reason)


def _reason(error: Exception) -> str:
    if isinstance(error, UsageError):
        return f"{error}"
    return f"failed with {type(error).__name__}: {f'{error}'.strip().partition(chr(10))[0][:300]}"


def run(config: ConfigDict, workdir: str | Path) -> None:
    """Prints the findings and a summary.

    Raises:
        RunError: A finding is an error.
    """
    compile_cache.enable()
    counts: Counter[str] = Counter()
    for name, finding in examine(config, workdir):
        counts[finding.level] += 1
        print(f"{finding.level:<8} {name:<11} {finding.text}", flush=True)
    summary = ", ".join(f"{level}: {counts[level]}" for level in (OK, WARNING, ERROR, SKIPPED))
    print(f"{summary}. docs/losses.md explains the losses of a run.", flush=True)
    if counts[ERROR]:
        raise RunError(f"Errors found: {counts[ERROR]}. Each line above says what to do.")
