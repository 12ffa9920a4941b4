"""Matches masks to images by the file names that common tools give to masks."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

# LaMa, SAM, editors and annotation tools write a_mask001, a_mask_000, a-mask, a mask (2).
_BEHIND = re.compile(r"(.+?)[ ._-]+mask(?:[ ._-]*\(?\d+\)?)?", re.IGNORECASE)
_BEFORE = re.compile(r"mask[ ._-]+(.+)", re.IGNORECASE)


def composed(name: str) -> str:
    """Returns a name in the form in which names are compared: an accent is part of its letter.

    macOS and some archives store the letter and the accent apart, which looks the same.
    """
    return unicodedata.normalize("NFC", name)


def names_of(image: Path) -> str:
    """Returns the possible names of an image's masks, for messages."""
    stem = image.stem
    return f"{stem}, {stem}_mask, {stem}-mask, mask_{stem} or {image.name}"


def marked_as_masks(files: Sequence[Path]) -> list[Path]:
    """Returns the files whose name marks them as the mask of another of the files."""
    stems = {file: composed(file.stem) for file in files}
    names = {composed(file.name) for file in files}
    images = names.union(stems.values())
    return [
        file
        for file, stem in stems.items()
        if stem in names or any(x in images for x in _stripped(stem))
    ]


def match(masks: Sequence[Path], images: Sequence[Path]) -> dict[Path, list[Path]]:
    """Finds the masks of each image.

    A mask has the name of its image with or without the suffix, alone or with "mask" before or
    after it. These forms are tried in this order, and the first match counts.

    Args:
        masks: Mask files.
        images: Image files.

    Returns:
        The masks of each image that has masks, in the order of `masks`.
    """
    by_name = defaultdict(list)
    for image in images:
        by_name[composed(image.stem)].append(image)
    for image in images:
        by_name[composed(image.name)] = [image]
    found = defaultdict(list)
    for mask in masks:
        stem = composed(mask.stem)
        name = next((x for x in (stem, *_stripped(stem)) if x in by_name), None)
        for image in by_name[name] if name else ():
            found[image].append(mask)
    return found


def _stripped(stem: str) -> Iterator[str]:
    """Yields the image names that a mask of this name may belong to."""
    for pattern in (_BEHIND, _BEFORE):
        if named := pattern.fullmatch(stem):
            yield named[1]
