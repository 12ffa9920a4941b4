"""The command that completes a picture, or a folder of them.

python -m deepfill_jax.inpaint --model FILE --images PATH --masks PATH --output PATH
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from deepfill_jax.errors import FailedError, UsageError, run_command
from deepfill_jax.inpainter import Inpainter
from deepfill_jax.pictures import READABLE, WRITABLE, size

_JPEG_QUALITY = 95  # Pillow's 75 would show in known pixels.


class Job(NamedTuple):
    """One picture for the command to complete."""

    image: Path
    mask: Path
    output: Path


def plan(images: Path, masks: Path, output: Path, *, overwrite: bool) -> list[Job]:
    """Finds each picture's mask and a name for its result, and makes the results' folder.

    Args:
        images: A picture, or a folder of pictures; folders in it are not searched.
        masks: One mask for all, or a folder with a mask of each image's name up to the suffix.
        output: A file, if `images` is one and this has a suffix of `WRITABLE`; otherwise a
            folder for PNG files with the names of the images.
        overwrite: Files that exist may be replaced.

    Raises:
        UsageError: Pictures, masks or a place to write are missing, or results exist already.
    """
    found, found_masks = _by_name(images), _by_name(masks)
    if masks.is_file():
        found_masks = dict.fromkeys(found, masks)
    if missing := [path.name for name, path in found.items() if name not in found_masks]:
        raise UsageError(
            f"{masks} holds no mask for {', '.join(missing)}; a mask has its image's name, with "
            "any suffix."
        )
    is_file = images.is_file() and output.suffix.lower() in WRITABLE
    results = {name: output if is_file else output / f"{name}.png" for name in found}
    if existing := [str(path) for path in results.values() if path.exists() and not overwrite]:
        raise UsageError(f"Already there: {', '.join(existing)}; --overwrite replaces files.")
    folder = output.parent if is_file else output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be a folder for the results: {error}.") from error
    return [Job(path, found_masks[name], results[name]) for name, path in found.items()]


def _by_name(path: Path) -> dict[str, Path]:
    """The picture, or the pictures in a folder, sorted, by name without suffix."""
    in_folder = (file for file in path.glob("[!.]*") if file.suffix.lower() in READABLE)
    found = [path] if path.is_file() else sorted(in_folder)
    if not found:
        raise UsageError(f"{path} is neither a picture nor a folder that holds pictures.")
    by_name = {file.stem: file for file in found}
    if same := [file.name for file in found if by_name[file.stem] != file]:
        raise UsageError(
            f"{path} holds other files named as {', '.join(same)} up to the suffix, and files are "
            "matched by that name; rename them."
        )
    return by_name


def run(inpainter: Inpainter, jobs: Sequence[Job]) -> None:
    """Completes pictures and prints a line for each.

    Raises:
        FailedError: In the end, if some could not be read or written.
    """
    started = time.monotonic()
    failed = []
    for job in jobs:
        began = time.monotonic()
        try:
            completed = inpainter(job.image, job.mask)
            Image.fromarray(completed).save(job.output, quality=_JPEG_QUALITY)
        except (UsageError, OSError) as error:
            failed.append(str(job.image))
            print(f"error: {job.image} -> {job.output}: {error}", file=sys.stderr)
        else:
            seconds = time.monotonic() - began
            print(f"{job.image} -> {job.output}: {size(completed)}, {seconds:.1f} s")
    seconds = time.monotonic() - started
    print(f"{len(jobs) - len(failed)} of {len(jobs)} pictures completed in {seconds:.1f} s")
    if failed:
        raise FailedError(f"Not completed: {', '.join(failed)}; see above.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Completes the pictures that the command line names."""
    parser = argparse.ArgumentParser("python -m deepfill_jax.inpaint")
    parser.add_argument("--model", required=True, help="model file (.safetensors)")
    parser.add_argument("--images", type=Path, required=True, help="picture, or folder of them")
    parser.add_argument(
        "--masks", type=Path, required=True, help="mask, white in the hole, or folder, same names"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="file for one picture, or folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    options = parser.parse_args(arguments)

    def command():
        jobs = plan(options.images, options.masks, options.output, overwrite=options.overwrite)
        run(Inpainter.load(options.model), jobs)

    run_command(command)


if __name__ == "__main__":
    main()
