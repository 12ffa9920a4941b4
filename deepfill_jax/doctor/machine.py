"""Checks of devices, versions and the run's folder."""

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
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deepfill_jax import checkpoint, renamed, sharding
from deepfill_jax.convert.run import CONFIG
from deepfill_jax.doctor.case import ERROR, OK, WARNING, Case, Finding, need
from deepfill_jax.local_paths import require_local
from deepfill_jax.train import build
from deepfill_jax.train.description import differences

# The oldest versions that setup.cfg allows, and the newest versions that the tests have run with:
# Python 3.11 with the left column, Python 3.12 with the right column.
TESTED = {
    "python": ("3.11", "3.13"),
    "jax": ("0.7.2", "0.12.0"),
    "jaxlib": ("0.7.2", "0.12.0"),
    "flax": ("0.11.2", "0.12.12"),
    "optax": ("0.2.8", "0.2.8"),
    "orbax-checkpoint": ("0.12.8", "0.12.8"),
    "tensorflow": ("2.20", "2.21"),
    "numpy": ("2.1", "2.5"),
}
GIB = 2**30
MAX_LISTED_KEYS = 6  # Config keys that a message lists.
# Prefixes of the config keys that determine the contents of a checkpoint.
NETWORK_KEYS = "config.model."


def devices(case: Case) -> Iterator[Finding]:
    """Checks which devices JAX uses, and whether a GPU is unused."""
    jax_devices = jax.devices()
    case.mesh = sharding.make_mesh(jax_devices)
    first = jax_devices[0]
    kind = f" ({first.device_kind})" if first.device_kind != "cpu" else ""
    listed = f"{len(jax_devices)} x {first.platform}{kind}"
    gpu = nvidia_gpu() if first.platform == "cpu" else None
    if gpu:
        yield Finding(ERROR, f"JAX uses {listed}, but this machine has {gpu}; {_gpu_remedy()}")
    else:
        yield Finding(OK, f"JAX {jax.__version__} uses {listed}.")


def nvidia_gpu() -> str | None:
    """Returns the name of this machine's NVIDIA GPU, even if JAX cannot use it, or None."""
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        result = subprocess.run(query, capture_output=True, text=True, timeout=20)
        if result.returncode == 0 and result.stdout.strip():
            return result.stdout.splitlines()[0].strip()
    except (OSError, subprocess.TimeoutExpired):
        pass
    listed = any(Path("/proc/driver/nvidia/gpus").glob("*"))
    return "an NVIDIA GPU" if listed or Path("/dev/nvidia0").exists() else None


def _gpu_remedy() -> str:
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted and "cuda" not in wanted and "gpu" not in wanted:
        return f"JAX_PLATFORMS={wanted} disables it: unset JAX_PLATFORMS."
    plugins = [f"jax-cuda{version}-plugin" for version in (12, 13)]
    installed = [name for name in plugins if _version(name)]
    if installed:
        return (
            f"{installed[0]} is installed but cannot use it: check nvidia-smi, "
            "CUDA_VISIBLE_DEVICES, and whether the driver is recent enough."
        )
    return 'pip install "jax[cuda13]", which needs NVIDIA driver 580 or newer.'


def versions(case: Case) -> Iterator[Finding]:
    """Checks the versions of Python and the most important packages."""
    del case
    installed = {name: _version(name) for name in TESTED}
    installed["python"] = platform.python_version()
    installed["tensorflow"] = installed["tensorflow"] or _version("tensorflow-cpu")
    yield from judge_versions(installed)


def judge_versions(installed: Mapping[str, str | None]) -> Iterator[Finding]:
    """Compares installed versions with `TESTED`; None means that a package is missing."""
    supported = []
    for name, (oldest, newest) in TESTED.items():
        version = installed[name]
        if version is None:
            yield Finding(ERROR, f"{name} is not installed; pip install 'deepfill_jax[train]'.")
        elif _is_beyond(oldest, version):
            remedy = f"pip install -U '{name}>={oldest}'" if name != "python" else "use a newer one"
            yield Finding(ERROR, f"{name} {version} is older than {oldest}; {remedy}.")
        elif _is_beyond(version, newest):
            yield Finding(
                WARNING,
                f"{name} {version} is newer than {newest}, the newest tested version; if training "
                "fails, try that one.",
            )
        else:
            supported.append(f"{name} {version}")
    if supported:
        yield Finding(OK, ", ".join(supported) + ".")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_beyond(version: str, bound: str) -> bool:
    """Tells whether a version is above a bound, comparing as many numbers as the bound has."""
    numbers, limit = ([int(n) for n in re.findall(r"\d+", text)] for text in (version, bound))
    return numbers[: len(limit)] > limit


def workdir(case: Case) -> Iterator[Finding]:
    """Checks whether the run's folder is writable, has enough free space, and contains a run."""
    require_local("--workdir", case.workdir)
    try:
        case.folder.mkdir(parents=True, exist_ok=True)
        test_file = case.folder / "trial"
        test_file.write_bytes(b"")
        test_file.unlink()
    except OSError as error:
        yield Finding(
            ERROR, f"{case.workdir} cannot be written ({error.strerror}); give another --workdir."
        )
        return
    mesh = need(case.mesh, "mesh")
    yield _disk_space(case, mesh)
    yield from _earlier_run(case, mesh)


def _disk_space(case: Case, mesh: Mesh) -> Finding:
    state = build.abstract_state(case.config, mesh)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    # A new checkpoint is written before the oldest one is deleted.
    config = case.config
    count = config.keep_latest + config.keep_best + 1
    count += config.num_steps // config.keep_every if config.keep_every else 0
    free = shutil.disk_usage(case.workdir).free
    text = (
        f"{case.workdir} has {free / GIB:.3g} GiB of free space; {count} checkpoints of "
        f"{size / GIB:.2g} GiB need {count * size / GIB:.2g} GiB"
    )
    if free < count * size:
        remedy = "free some space, lower config.keep_latest or keep_best, or raise keep_every."
        return Finding(ERROR, f"{text}; {remedy}")
    return Finding(OK, f"{text}.")


def _earlier_run(case: Case, mesh: Mesh) -> Iterator[Finding]:
    """Checks whether the new run can resume from a run in its folder."""
    steps = checkpoint.saved_steps(case.workdir / checkpoint.FOLDER)
    if not steps:
        return
    try:
        config = json.loads((case.workdir / CONFIG).read_text())
        before = ConfigDict(renamed.with_new_keys(config))
        same_state = _shapes(before, mesh) == _shapes(case.config, mesh)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        text = f"has checkpoints, but its {CONFIG} cannot be used ({error})"
        yield Finding(WARNING, f"{case.workdir} {text}; give another --workdir for a new run.")
        return
    prefixes = "" if same_state else NETWORK_KEYS
    changed = [
        f"{key}: {old!r}, now {new!r}"
        for key, old, new in differences(before, case.config)
        if key.startswith(prefixes)
    ]
    listed = ", ".join(changed[:MAX_LISTED_KEYS])
    listed += ", ..." if len(changed) > MAX_LISTED_KEYS else ""
    found = f"{case.workdir} contains a run at step {max(steps)}"
    if not same_state:
        text = "with other networks"
        yield Finding(ERROR, f"{found} {text} ({listed}); give another --workdir.")
    elif max(steps) >= case.config.num_steps:
        text = f"which is finished, because config.num_steps={case.config.num_steps}"
        yield Finding(WARNING, f"{found}, {text}; raise it, or give another --workdir.")
    elif changed:
        text = f"with other settings ({listed}), and training would resume from it"
        yield Finding(WARNING, f"{found} {text}; give another --workdir for a new run.")
    else:
        yield Finding(OK, f"{found}; training resumes from it.")


def _shapes(config: ConfigDict, mesh: Mesh) -> tuple:
    state = build.abstract_state(config, mesh)
    networks = state.generator.params, state.discriminator.params
    leaves, structure = jax.tree.flatten(networks)
    return structure, [(x.shape, x.dtype) for x in leaves]
