"""What is to do for many pictures: which mask is whose, and what its result is called.

A file that cannot be used stops no other: a `Failure`, with the reason, takes its job's place.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image

from deepfill_jax.atomic_write import is_current, unfinished_path
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import mask_names
from deepfill_jax.pictures import READABLE, WRITABLE

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
        return f"failed: {self.reason}"


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
) -> list[Job | Failure]:
    """Finds each picture's masks and a name for each result, and makes the results' folder.

    The masks of a picture are found by their names, see `mask_names`: `a.jpg` goes with `a.png`,
    `a_mask.png`, `a_mask001.png`, `mask_a.png` and `a.jpg.png`. A picture has a result for each
    mask, of the mask's name; of its own, if the mask is shared or there is none.

    Args:
        images: A picture, or a folder of them; folders in it are not searched.
        masks: A mask for all; a folder of masks, also that of the pictures, where only names that
            differ from the picture's are masks; or None, if the hole is what is transparent in the
            pictures.
        output: A file, if `images` is one and this has a suffix that can be written; otherwise a
            folder.
        sketches: A sketch for all; a folder of sketches, each of its picture's or mask's name up to
            the suffix; or None.
        keep_format: Results in a folder have their picture's suffix instead of `.png`.

    Returns:
        A job for each result, sorted by picture and mask. A failure in its place where a picture
        has no mask or no sketch, its suffix cannot be written, or two results would have the same
        name.

    Raises:
        UsageError: There are no pictures, no masks or no place to write, the output has a suffix
            that cannot be written, or a result would take the place of what is read.
    """
    is_file = names_a_file(images, output)
    found, masks_of = _pair(images, masks)
    rest = _unmatched(masks_of, masks)
    others = f"; masks without a picture: {first_few(rest)}" if rest else ""
    folder = output.parent if is_file else output
    planned: list[Job | Failure] = []
    for image in found:
        if not masks_of[image]:
            names = mask_names.names_of(image)
            planned.append(Failure(f"{image}: {masks} holds no mask named {names}{others}."))
        for mask in masks_of[image]:
            stem = image.stem if mask in (None, masks) else mask.stem
            name = stem + (image.suffix if keep_format else ".png")
            planned.append(Job(image, mask, output if is_file else folder / name))
    planned = _with_sketches(_writable(planned), sketches)
    _make_folder(folder)
    for path in () if is_file else (images, masks, sketches):
        if path and path.is_dir() and path.samefile(folder):
            raise UsageError(f"{folder} is read from; results need another folder.")
    for job in _jobs(planned):
        read = (job.image, job.mask, job.sketch)
        if job.result.resolve() in (path.resolve() for path in read if path):
            raise UsageError(f"{job.result} is read from; its result needs another name.")
    return planned


def _pair(
    images: Path, masks: Path | None
) -> tuple[list[Path], dict[Path, list[Path] | list[None]]]:
    """The pictures, and the masks of each; no masks where none is found."""
    found = _pictures(images)
    if masks is None:
        return found, {image: [None] for image in found}
    candidates = _pictures(masks)
    if masks.is_file():
        if images.is_dir():  # Which may hold the mask as well.
            found = [image for image in found if image.resolve() != masks.resolve()]
        return found, {image: candidates for image in found}
    if masks.samefile(images if images.is_dir() else images.parent):
        candidates = mask_names.marked_as_masks(candidates)
        names = {file.name for file in candidates} if images.is_dir() else set()
        found = [image for image in found if image.name not in names]
    masks_of = mask_names.match(candidates, found)
    return found, {image: masks_of[image] for image in found}


def _unmatched(masks_of: Mapping[Path, Sequence[Path | None]], masks: Path | None) -> list[Path]:
    """The files of the folder `masks` that are neither a picture nor the mask of one."""
    if masks is None or not masks.is_dir():
        return []
    used = {mask for own in masks_of.values() for mask in own}
    folders = {image.parent.resolve() for image in masks_of}
    return [] if masks.resolve() in folders else [x for x in _pictures(masks) if x not in used]


def masks_without_picture(images: Path, masks: Path | None) -> list[Path]:
    """The masks of a folder that belong to none of a folder's pictures."""
    return _unmatched(_pair(images, masks)[1], masks) if images.is_dir() else []


def first_few(paths: Sequence[Path]) -> str:
    """Names up to five paths, and says how many more there are."""
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(map(str, paths[:5])) + more


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


def _pictures(path: Path) -> list[Path]:
    """The picture, or those in a folder, sorted."""
    in_folder = (file for file in path.glob("[!.]*") if file.suffix.lower() in READABLE)
    found = [path] if path.is_file() else sorted(in_folder)
    if not found:
        raise UsageError(f"{path} is neither a picture nor a folder that holds pictures.")
    return found


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


def _with_sketches(planned: list[Job | Failure], sketches: Path | None) -> list[Job | Failure]:
    """Gives each job its sketch, or puts a failure where there is none."""
    if sketches is None:
        return planned
    found = _pictures(sketches)
    by_stem = {file.stem: file for file in found}

    def give(item: Job | Failure) -> Job | Failure:
        if isinstance(item, Failure):
            return item
        stems = list(dict.fromkeys(path.stem for path in (item.mask, item.image) if path))
        named = found if sketches.is_file() else [by_stem[s] for s in stems if s in by_stem]
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
