"""What is to do for many pictures: which mask is whose, and what its result is called.

A file that cannot be used stops no other: a `Failure`, with the reason, takes its job's place.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image

from deepfill_jax.atomic_write import is_current, unfinished_path
from deepfill_jax.errors import UsageError, printable
from deepfill_jax.inpaint import mask_names
from deepfill_jax.inpaint.finding import Found, find
from deepfill_jax.inpaint.pairing import below, first_few, pair
from deepfill_jax.pictures import READABLE, WRITABLE, format_of, own_suffix

Item = TypeVar("Item")


class Job(NamedTuple):
    """One picture to complete."""

    image: Path
    mask: Path | None  # None: the hole is what is transparent in the picture.
    result: Path
    sketch: Path | None = None  # Lines that guide the fill.


class Failure(NamedTuple):
    """A picture that is not completed, and why: a sentence that names it."""

    reason: str
    is_wrong_use: bool = True  # And not of the disk, the memory, the device.

    def __str__(self) -> str:
        return f"failed: {printable(self.reason)}"


class Shard(NamedTuple):
    """Every `count`-th item, beginning with the `index`-th, counted from 1."""

    index: int
    count: int

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns this shard's items; the shards together hold each item once."""
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
    """Finds each picture's masks and a name for each result, and makes the results' folder.

    The masks of a picture are found by their names, see `mask_names`: `a.jpg` goes with `a.png`,
    `a_mask.png`, `a_mask001.png`, `mask_a.png` and `a.jpg.png`. A picture has a result for each
    mask, of the mask's name; of its own, if the mask is shared or there is none.

    Args:
        images: A picture, or a folder of them.
        masks: A mask for all; a folder of masks, also that of the pictures, where only names that
            differ from the picture's are masks; or None, if the hole is what is transparent in the
            pictures.
        output: A file, if `images` is one and this has a suffix that can be written; otherwise a
            folder.
        sketches: A sketch for all; a folder of sketches, each of its picture's or mask's name up to
            the suffix; or None.
        keep_format: Results in a folder have their picture's format, by its content, instead of
            PNG.
        recursive: Folders in these folders are searched too; the results lie as the pictures do.

    Returns:
        A job for each result, sorted by picture and mask. A failure in its place where a picture
        has no mask or no sketch, its suffix cannot be written, or two results would have the same
        name.

    Raises:
        UsageError: There are no pictures, no masks or no place to write, the output has a suffix
            that cannot be written, or a result would take the place of what is read.
    """
    is_file = names_a_file(images, output)
    places = images, masks, sketches, output
    search = functools.partial(find, recursive=recursive, skip=places)
    masks_of, rest = pair(images, masks, search)
    others = f"; masks without a picture: {first_few(rest)}" if rest else ""
    folder = output.parent if is_file else output
    planned: list[Job | Failure] = []
    for image, own in masks_of.items():
        if not own:
            names = mask_names.names_of(image)
            planned.append(Failure(f"{image}: {masks} holds no mask named {names}{others}."))
        for mask in own:
            stem = image.stem if mask in (None, masks) else mask.stem
            name = stem + (_own_suffix(image) if keep_format else ".png")
            result = output if is_file else folder / below(images, image) / name
            planned.append(Job(image, mask, result))
    planned = _with_sketches(_writable(planned), sketches, images, search)
    for parent in sorted({folder, *(job.result.parent for job in _jobs(planned))}):
        _make_folder(parent)
    for path in () if is_file else (images, masks, sketches):
        if path and path.is_dir() and path.samefile(folder):
            raise UsageError(f"{folder} is read from; results need another folder.")
    for job in _jobs(planned):
        read = (job.image, job.mask, job.sketch)
        if job.result.resolve() in (path.resolve() for path in read if path):
            raise UsageError(f"{job.result} is read from; its result needs another name.")
    return planned


def names_a_file(images: Path, output: Path) -> bool:
    """Whether the output of a picture is a file, and not a folder.

    Raises:
        UsageError: Its suffix is that of a picture file, but it cannot be one.
    """
    suffix = output.suffix.lower()
    suffixes = WRITABLE.keys() | READABLE | Image.registered_extensions().keys()
    if output.is_dir() or suffix not in suffixes:
        return False
    if suffix not in WRITABLE:
        raise UsageError(
            f"{output} cannot be written: {suffix} is not among the formats that can be written; "
            "use .png."
        )
    if images.is_dir():
        raise UsageError(f"{output} is named as a file, but {images} is a folder; name a folder.")
    return True


def _own_suffix(image: Path) -> str:
    """The suffix of a picture's own format, which its content decides."""
    try:
        name = format_of(image)
    except OSError:  # Reported when it is read.
        name = None
    return image.suffix if name is None else own_suffix(image.suffix, name)


def _writable(planned: list[Job | Failure]) -> list[Job | Failure]:
    """Puts failures for jobs whose results have no name of their own, or no format."""
    times = Counter(job.result for job in _jobs(planned))

    def check(item: Job | Failure) -> Job | Failure:
        if isinstance(item, Failure):
            return item
        if times[item.result] > 1:
            return Failure(
                f"{item.image}: {item.result} would be the result of other files as well; files "
                "are matched by their names up to the suffix, so rename one."
            )
        if item.result.suffix.lower() not in WRITABLE:
            return Failure(f"{item.image}: {item.result.suffix} can be read, but not written.")
        return item

    return [check(item) for item in planned]


def _with_sketches(
    planned: list[Job | Failure],
    sketches: Path | None,
    images: Path,
    search: Callable[[Path], Found],
) -> list[Job | Failure]:
    """Gives each job its sketch, or puts a failure where there is none."""
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
            return Failure(f"{item.image}: {sketches} holds no sketch named {' or '.join(stems)}.")
        return item._replace(sketch=named[0])

    return [give(item) for item in planned]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be a folder for the results: {error}.") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} cannot be written to.")


def _jobs(planned: Iterable[Job | Failure]) -> Iterator[Job]:
    return (item for item in planned if isinstance(item, Job))


def remaining(planned: Sequence[Job | Failure], model: Sequence[Path] = ()) -> list[Job | Failure]:
    """Leaves out the jobs whose results are there and not older than what they were made from.

    Args:
        planned: What to do. A result that is there is whole.
        model: The files of the model.
    """
    return [
        item
        for item in planned
        if isinstance(item, Failure)
        or not is_current(item.result, [item.image, item.mask, item.sketch, *model])
    ]


def clean(planned: Sequence[Job | Failure]) -> None:
    """Deletes what a killed run left of these jobs, and nothing of another shard's."""
    for job in _jobs(planned):
        unfinished_path(job.result).unlink(missing_ok=True)
