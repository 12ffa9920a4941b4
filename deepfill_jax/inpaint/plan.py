"""Plans the work on many images: matches masks and sketches to images, and names the results.

An unusable file does not stop the others: a `Failure` with the reason replaces its job.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image

from deepfill_jax.atomic_write import unfinished_path
from deepfill_jax.errors import UsageError, printable
from deepfill_jax.inpaint import mask_names
from deepfill_jax.inpaint.finding import Found, find
from deepfill_jax.inpaint.pairing import below, first_few, pair
from deepfill_jax.pictures import READABLE, WRITABLE, format_of, own_suffix

Item = TypeVar("Item")


class Job(NamedTuple):
    """One image to complete."""

    image: Path
    mask: Path | None  # None: the transparent pixels of the image are the hole.
    result: Path
    sketch: Path | None = None  # Lines that guide the completion.


class Failure(NamedTuple):
    """An image that was not completed; `reason` is a sentence that names the image."""

    reason: str
    is_usage_error: bool = True  # False for errors of the disk, the memory or the device.

    def __str__(self) -> str:
        return f"failed: {printable(self.reason)}"


@dataclass(frozen=True)
class Shard:
    """Selects every `count`-th item, beginning with the `index`-th, counted from 1."""

    index: int
    count: int

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns this shard's items; each item is in exactly one shard."""
        return items[self.index - 1 :: self.count]


def plan(
    images: Path,
    masks: Path | None,
    output: Path,
    *,
    sketches: Path | None = None,
    keep_format: bool = False,
    recursive: bool = False,
) -> list[Job | Failure]:
    """Finds the masks of each image, names each result, and creates the folders of the results.

    Masks are matched to images by name, see `mask_names`: `a.png`, `a_mask.png`, `a_mask001.png`,
    `mask_a.png` and `a.jpg.png` are masks of `a.jpg`. Each mask of an image yields one result,
    which has the name of the mask. The result has the name of the image if the mask is shared or
    there is none.

    Args:
        images: An image file, or a folder of image files.
        masks: One mask for all images; a folder of masks; or None, if the transparent pixels of the
            images are their holes. In the folder of the images, a mask must have another name than
            its image.
        output: A file if `images` is a file and this has a suffix that can be written; otherwise a
            folder.
        sketches: One sketch for all images; a folder of sketches, each with the name of its image
            or mask up to the suffix; or None.
        keep_format: Write results in a folder in the format of their image, which its content
            decides, instead of PNG.
        recursive: Search subfolders too. The results have the same subfolders as the images.

    Returns:
        A job for each result, sorted by image and mask. A failure replaces a job if its image has
        no mask or no sketch, if the suffix of its result cannot be written, or if two results would
        have the same name.

    Raises:
        UsageError: There are no images or no masks, the output cannot be written, its suffix is
            that of a format that cannot be written, or a result would overwrite an input.
    """
    is_file = names_a_file(images, output)
    places = images, masks, sketches, output
    search = functools.partial(find, recursive=recursive, skip=places)
    masks_of, rest = pair(images, masks, search)
    others = f"; masks without an image: {first_few(rest)}" if rest else ""
    folder = output.parent if is_file else output
    planned: list[Job | Failure] = []
    for image, own in masks_of.items():
        if not own:
            names = mask_names.names_of(image)
            planned.append(Failure(f"{image}: {masks} contains no mask named {names}{others}."))
        for mask in own:
            stem = image.stem if mask in (None, masks) else mask.stem
            name = stem + (_own_suffix(image) if keep_format else ".png")
            result = output if is_file else folder / below(images, image) / name
            planned.append(Job(image, mask, result))
    planned = _with_sketches(_writable(planned), sketches, images, search)
    for parent in sorted({folder, *(job.result.parent for job in _jobs(planned))}):
        _make_folder(parent)
    if not is_file:
        _check_is_no_input_folder(folder, (images, masks, sketches))
    _check_keeps_inputs(planned)
    return planned


def names_a_file(images: Path, output: Path) -> bool:
    """Returns whether the output is a file rather than a folder.

    Raises:
        UsageError: The output has the suffix of an image file, but its format cannot be written or
            `images` is a folder.
    """
    suffix = output.suffix.lower()
    suffixes = WRITABLE.keys() | READABLE | Image.registered_extensions().keys()
    if output.is_dir() or suffix not in suffixes:
        return False
    if suffix not in WRITABLE:
        raise UsageError(
            f"{output} cannot be written: {suffix} is not a format that can be written; use .png."
        )
    if images.is_dir():
        raise UsageError(
            f"{output} has the suffix of a file, but {images} is a folder; name a folder."
        )
    return True


def _own_suffix(image: Path) -> str:
    """Returns the suffix of an image's format, which its content decides."""
    try:
        name = format_of(image)
    except OSError:  # The error is reported when the image is read.
        name = None
    return image.suffix if name is None else own_suffix(image.suffix, name)


def _writable(planned: list[Job | Failure]) -> list[Job | Failure]:
    """Replaces jobs by failures if their result's name is not unique or cannot be written."""
    times = Counter(job.result for job in _jobs(planned))

    def check(item: Job | Failure) -> Job | Failure:
        if isinstance(item, Failure):
            return item
        if times[item.result] > 1:
            return Failure(
                f"{item.image}: {item.result} would also be the result of other files; files are "
                "matched by their names without suffix, so rename one of them."
            )
        if item.result.suffix.lower() not in WRITABLE:
            return Failure(f"{item.image}: {item.result.suffix} can be read but not written.")
        return item

    return [check(item) for item in planned]


def _with_sketches(
    planned: list[Job | Failure],
    sketches: Path | None,
    images: Path,
    search: Callable[[Path], Found],
) -> list[Job | Failure]:
    """Adds a sketch to each job; replaces a job without a sketch by a failure."""
    if sketches is None:
        return planned
    found = search(sketches).files
    by_stem = {(below(sketches, file), file.stem): file for file in found}

    def give(item: Job | Failure) -> Job | Failure:
        if isinstance(item, Failure):
            return item
        stems = list(dict.fromkeys(path.stem for path in (item.mask, item.image) if path))
        keys = [(below(images, item.image), stem) for stem in stems]
        named = found if sketches.is_file() else [by_stem[key] for key in keys if key in by_stem]
        if not named:
            return Failure(
                f"{item.image}: {sketches} contains no sketch named {' or '.join(stems)}."
            )
        return item._replace(sketch=named[0])

    return [give(item) for item in planned]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder {folder} for the results cannot be created: {error}."
        ) from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"The folder {folder} for the results is not writable.")


def _check_is_no_input_folder(folder: Path, inputs: Iterable[Path | None]) -> None:
    if any(path and path.is_dir() and path.samefile(folder) for path in inputs):
        raise UsageError(f"{folder} is a folder of inputs; choose another folder for the results.")


def _check_keeps_inputs(planned: Iterable[Job | Failure]) -> None:
    """Raises UsageError if a result would overwrite an input of its job."""
    for job in _jobs(planned):
        read = (job.image, job.mask, job.sketch)
        if job.result.resolve() in (path.resolve() for path in read if path):
            raise UsageError(f"{job.result} is an input; choose another name for the result.")


def _jobs(planned: Iterable[Job | Failure]) -> Iterator[Job]:
    return (item for item in planned if isinstance(item, Job))


def clean(planned: Sequence[Job | Failure]) -> None:
    """Deletes the unfinished files that a killed run left for these jobs, not for other shards."""
    for job in _jobs(planned):
        unfinished_path(job.result).unlink(missing_ok=True)
