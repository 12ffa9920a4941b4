"""Finds the images and masks of a command, and matches masks to images."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from deepfill_jax.inpaint import mask_names
from deepfill_jax.inpaint.finding import Found, find


class Pairs(NamedTuple):
    """Images with their masks.

    Attributes:
        masks_of: The masks of each image, sorted by image; [None] if the transparent pixels
            are the hole, [] if no mask was found.
        rest: Masks that match no image; empty if images and masks share a folder.
    """

    masks_of: dict[Path, list[Path] | list[None]]
    rest: Sequence[Path] = ()


def pair(images: Path, masks: Path | None, search: Callable[[Path], Found] = find) -> Pairs:
    """Finds images and masks, and matches them by name within the same relative folder.

    Args:
        images: An image, or a folder of images.
        masks: One mask for all images; a folder of masks, which may be the folder of the images; or
            None.
        search: Finds the image files at a path; see `find`.

    Raises:
        UsageError: There are no images or no masks.
    """
    found = search(images).files
    if masks is None:
        return Pairs({image: [None] for image in found})
    candidates = search(masks).files
    if masks.is_file():
        if images.is_dir():  # The folder may contain the mask as well.
            found = [image for image in found if image.resolve() != masks.resolve()]
        return Pairs({image: candidates for image in found})
    is_shared = masks.samefile(images if images.is_dir() else images.parent)
    if is_shared:
        folders = _by_folder(candidates, masks).values()
        candidates = [file for folder in folders for file in mask_names.marked_as_masks(folder)]
        marked = {file.resolve() for file in candidates} if images.is_dir() else set()
        found = [image for image in found if image.resolve() not in marked]
    in_folder = _by_folder(candidates, masks)
    matched: dict[Path, list[Path]] = {}
    for folder, own in _by_folder(found, images).items():
        matched |= mask_names.match(in_folder[folder], own)
    used = {mask for own in matched.values() for mask in own}
    rest = [] if is_shared else [mask for mask in candidates if mask not in used]
    return Pairs({image: matched.get(image, []) for image in found}, rest)


def below(searched: Path, file: Path) -> Path:
    """Returns the folder of a file, relative to the path that was searched."""
    return file.parent.relative_to(searched) if file != searched else Path()


def first_few(paths: Sequence[Path]) -> str:
    """Returns the names of up to five paths and the number of the others."""
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(map(str, paths[:5])) + more


def _by_folder(files: Iterable[Path], searched: Path) -> defaultdict[Path, list[Path]]:
    folders = defaultdict(list)
    for file in files:
        folders[below(searched, file)].append(file)
    return folders
