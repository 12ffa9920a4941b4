"""Checks of the machine: devices, versions, the run's folder."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
from ml_collections import ConfigDict

from deepfill_jax import checkpoint, renamed, sharding
from deepfill_jax.convert.run import CONFIG
from deepfill_jax.doctor.case import OK, WARNING, WRONG, Case, Finding
from deepfill_jax.train import build

# The oldest versions that setup.cfg allows and the newest that the tests have run with: Python 3.11
# with the left column, 3.12 with the right one.
TESTED = {
    "python": ("3.11", "3.12"),
    "jax": ("0.10.2", "0.12.0"),
    "jaxlib": ("0.10.2", "0.12.0"),
    "flax": ("0.12.8", "0.12.12"),
    "optax": ("0.2.8", "0.2.8"),
    "orbax-checkpoint": ("0.12.8", "0.12.8"),
    "tensorflow": ("2.21", "2.21"),
    "numpy": ("2.0", "2.5"),
}
GIB = 2**30
NAMED = 6  # Keys that a message names.
# Which of them decide what a checkpoint holds.
STATE_KEYS = ("model.", "optimizer.", "discriminator_optimizer.", "ema_decay")


def devices(case: Case) -> Iterator[Finding]:
    """What JAX computes on, and whether it leaves a GPU idle."""
    found = jax.devices()
    case.mesh = sharding.make_mesh(found)
    kind = found[0].device_kind
    seen = f"{len(found)} x {found[0].platform}" + (f" ({kind})" if kind != "cpu" else "")
    gpu = nvidia_gpu() if found[0].platform == "cpu" else None
    if gpu:
        yield Finding(WRONG, f"JAX sees {seen}, but this machine has {gpu}; {_gpu_remedy()}")
    else:
        yield Finding(OK, f"{seen}, on which JAX {jax.__version__} computes.")


def nvidia_gpu() -> str | None:
    """Returns the name of an NVIDIA GPU of this machine, which JAX may know nothing of."""
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(query, capture_output=True, text=True, timeout=20)
        if said.returncode == 0 and said.stdout.strip():
            return said.stdout.splitlines()[0].strip()
    except (OSError, subprocess.TimeoutExpired):
        pass
    listed = any(Path("/proc/driver/nvidia/gpus").glob("*"))
    return "an NVIDIA GPU" if listed or Path("/dev/nvidia0").exists() else None


def _gpu_remedy() -> str:
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted and "cuda" not in wanted and "gpu" not in wanted:
        return f"JAX_PLATFORMS={wanted} forbids it: unset JAX_PLATFORMS."
    plugins = [f"jax-cuda{version}-plugin" for version in (12, 13)]
    installed = [name for name in plugins if _version(name)]
    if installed:
        return (
            f"{installed[0]} is installed and cannot use it: see what nvidia-smi and "
            "CUDA_VISIBLE_DEVICES say, and whether the driver is new enough."
        )
    return 'pip install "jax[cuda12]", or jax[cuda13] where nvidia-smi says CUDA 13.'


def versions(case: Case) -> Iterator[Finding]:
    """Python and the packages whose version matters most."""
    del case
    found = {name: _version(name) for name in TESTED}
    found["python"] = platform.python_version()
    found["tensorflow"] = found["tensorflow"] or _version("tensorflow-cpu")
    yield from judge_versions(found)


def judge_versions(found: Mapping[str, str | None]) -> Iterator[Finding]:
    """Compares versions with `TESTED`; None is a package that is missing."""
    fine = []
    for name, (oldest, newest) in TESTED.items():
        version = found[name]
        if version is None:
            yield Finding(WRONG, f"{name} is not installed; pip install 'deepfill_jax[train]'.")
        elif _is_beyond(oldest, version):
            remedy = f"pip install -U '{name}>={oldest}'" if name != "python" else "use a newer one"
            yield Finding(WRONG, f"{name} {version} is older than {oldest}; {remedy}.")
        elif _is_beyond(version, newest):
            yield Finding(
                WARNING,
                f"{name} {version} is newer than {newest}, the newest that the tests ran with; "
                "if something fails, try that one.",
            )
        else:
            fine.append(f"{name} {version}")
    if fine:
        yield Finding(OK, ", ".join(fine) + ".")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_beyond(version: str, bound: str) -> bool:
    """Whether a version is above a bound, as far as the bound says its numbers."""
    numbers, limit = ([int(n) for n in re.findall(r"\d+", text)] for text in (version, bound))
    return numbers[: len(limit)] > limit


def workdir(case: Case) -> Iterator[Finding]:
    """Whether the run's folder can be written, has room, and holds another run."""
    try:
        case.folder.mkdir(parents=True, exist_ok=True)
        trial = case.folder / "trial"
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        yield Finding(
            WRONG, f"{case.workdir} cannot be written ({error.strerror}); give another --workdir."
        )
        return
    case.need("mesh")
    yield _room(case)
    yield from _earlier_run(case)


def _room(case: Case) -> Finding:
    state = build.abstract_state(case.config, case.mesh)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    # One more is there while it is written and the oldest is not yet deleted.
    count = case.config.keep_latest + case.config.keep_best + 1
    free = shutil.disk_usage(case.workdir).free
    text = (
        f"{case.workdir} has {free / GIB:.3g} GiB free, {count} checkpoints of "
        f"{size / GIB:.2g} GiB take {count * size / GIB:.2g}"
    )
    if free < count * size:
        remedy = "make room, or lower config.keep_latest and config.keep_best."
        return Finding(WRONG, f"{text}; {remedy}")
    return Finding(OK, f"{text}.")


def _earlier_run(case: Case) -> Iterator[Finding]:
    """What a run in the folder says of the one that shall go on from it."""
    folder = case.workdir / checkpoint.FOLDER
    saved = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    if not saved:
        return
    try:
        config = json.loads((case.workdir / CONFIG).read_text())
        before = ConfigDict(renamed.with_new_keys(config))
        same_state = _shapes(before, case) == _shapes(case.config, case)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        text = f"has checkpoints, but a {CONFIG} that cannot be used ({error})"
        yield Finding(WARNING, f"{case.workdir} {text}; give another --workdir to start anew.")
        return
    changed = _differences(before, case.config, () if same_state else STATE_KEYS)
    listed = ", ".join(changed[:NAMED]) + (", ..." if len(changed) > NAMED else "")
    where = f"{case.workdir} holds a run of step {max(saved)}"
    if not same_state:
        text = "of other networks or optimisers"
        yield Finding(WRONG, f"{where} {text} ({listed}); give another --workdir.")
    elif max(saved) >= case.config.num_steps:
        text = f"and config.num_steps={case.config.num_steps}: nothing is left to do"
        yield Finding(WARNING, f"{where}, {text}; raise it, or give another --workdir.")
    elif changed:
        text = f"with other values ({listed}), from which this one would go on"
        yield Finding(WARNING, f"{where} {text}; give another --workdir to start anew.")
    else:
        yield Finding(OK, f"{where}, from which this one goes on.")


def _shapes(config: ConfigDict, case: Case) -> tuple:
    leaves, structure = jax.tree.flatten(build.abstract_state(config, case.mesh))
    return structure, [(x.shape, x.dtype) for x in leaves]


def _differences(before: ConfigDict, now: ConfigDict, prefixes: tuple[str, ...]) -> list[str]:
    """Lists as "config.KEY: BEFORE, now NOW" what differs, of some prefixes if there are any."""
    old, new = (dict(_leaves(config)) for config in (before, now))
    return [
        f"config.{key}: {old.get(key)!r}, now {new.get(key)!r}"
        for key in {**old, **new}
        if old.get(key) != new.get(key) and (not prefixes or key.startswith(prefixes))
    ]


def _leaves(config: ConfigDict, path: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
