"""What a run's folder says about the run: its config, its images and its networks.

A run may be resumed with another config or other images. The differences are logged, and the files
of before are kept as `config-STEP.json` and `images-STEP.json`.
"""

import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert.run import CONFIG, read_config
from deepfill_jax.data.files import MAX_MISSING
from deepfill_jax.data.sources import Source
from deepfill_jax.errors import UsageError
from deepfill_jax.train import freezing
from deepfill_jax.train.state import TrainState

logger = logging.getLogger(__name__)

IMAGES = "images.json"  # Number and checksum of the training and the validation images.


def check_images(workdir: Path, sources: Mapping[str, Source]) -> None:
    """Checks that the images of the run's last start are still there.

    Args:
        workdir: The run's folder.
        sources: The images by their use: "training", "validation".

    Raises:
        UsageError: More than `MAX_MISSING` of the images of the same source are missing.
    """
    before = _read_images(workdir)
    for use, source in sources.items():
        known = before.get(use, {})
        if known.get("source") == source.name and len(source) < (1 - MAX_MISSING) * known["images"]:
            raise UsageError(
                f"{source.name} has {len(source):,} images, but {known['images']:,} at the last "
                "start of the run. Check that all disks are mounted; if images were removed on "
                f"purpose, delete {workdir / IMAGES}."
            )


def write(
    config: ConfigDict, workdir: Path, state: TrainState, sources: Mapping[str, Source]
) -> None:
    """Writes config, images and list of parameters, and prints the number of parameters.

    Differences from the last start of the run are logged.

    Args:
        config: The run's config.
        workdir: The run's folder.
        state: The state from which the run starts.
        sources: See `check_images`.
    """
    step = int(state.step)
    images = {use: _identify(source) for use, source in sources.items()}
    changed = [*_changed_values(workdir, config), *_changed_images(workdir, images)]
    kept = [
        _write(workdir / CONFIG, config.to_json(indent=2), step),
        _write(workdir / IMAGES, json.dumps(images, indent=2), step),
    ]
    if changed:
        names = " and ".join(path.name for path in kept if path)
        logger.warning(
            "The run continues at step %d with other settings than before: %s. Kept: %s.",
            *(step, ", ".join(changed), names),
        )
    overview = {"generator": state.generator.params, "discriminator": state.discriminator.params}
    text = parameter_overview.get_parameter_overview(overview)
    (workdir / "parameters.txt").write_text(text + "\n")
    counts = {name: parameter_overview.count_parameters(net) for name, net in overview.items()}
    sizes = {x: v.size for name, net in overview.items() for x, v in freezing.paths(name, net)}
    frozen = sum(sizes[name] for name in freezing.match(config.freeze, sizes.keys()))
    print(
        f"{config.model.architecture}: {counts['generator']:,} generator and "
        f"{counts['discriminator']:,} discriminator parameters"
        f"{f', {frozen:,} of them frozen,' if frozen else ''} on {jax.device_count()} "
        f"{jax.devices()[0].platform} device(s); step {step} of {config.num_steps}.{_compiling()}",
        flush=True,
    )


def _compiling() -> str:
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return " Compiling the training step" + (f", or reading it from {folder}." if folder else ".")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns path, value before and value now of each config value that differs.

    Keys that are missing in the earlier config are omitted: they were added by a later version, and
    their default behaves like the earlier version.
    """
    old, new = dict(leaves(before)), dict(leaves(now))
    return [(key, old[key], new.get(key)) for key in old if old[key] != new.get(key)]


def leaves(config: Mapping[str, Any], path: str = "config.") -> Iterator[tuple[str, Any]]:
    """Yields the path of each value of a config, such as "config.model.width", and the value."""
    for key, value in config.items():
        if isinstance(value, (Mapping, ConfigDict)):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _changed_values(workdir: Path, config: ConfigDict) -> list[str]:
    if not (workdir / CONFIG).exists():
        return []
    try:
        before = read_config(workdir)
    except UsageError as error:
        return [f"{error}"]
    return [f"{key} {old!r} -> {new!r}" for key, old, new in differences(before, config)]


def _changed_images(workdir: Path, images: Mapping[str, Mapping[str, Any]]) -> list[str]:
    before = _read_images(workdir)
    return [
        f"other {use} images ({before[use]['images']:,} -> {now['images']:,})"
        for use, now in images.items()
        if use in before and before[use] != now
    ]


def _identify(source: Source) -> dict[str, Any]:
    checksum = zlib.crc32(source.identity().encode("utf-8", "surrogateescape"))
    return {"source": source.name, "images": len(source), "crc32": checksum}


def _read_images(workdir: Path) -> dict[str, dict[str, Any]]:
    try:
        return json.loads((workdir / IMAGES).read_text())
    except (OSError, ValueError):  # A new run, or one of an earlier version.
        return {}


def _write(path: Path, text: str, step: int) -> Path | None:
    """Writes a file; returns where the text before is kept if it differs.

    If the run has saved no step since it was kept, it is the text of the saved steps, and stays.
    """
    text += "\n"
    before = path.read_text() if path.exists() else text
    kept = path.with_stem(f"{path.stem}-{step}")
    if before != text and not kept.exists():
        with atomic_write(kept) as unfinished:
            unfinished.write_text(before)
    with atomic_write(path) as unfinished:
        unfinished.write_text(text)
    return kept if before != text else None
