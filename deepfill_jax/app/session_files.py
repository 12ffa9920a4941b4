"""The files of a browser session: the input image, and the completed image."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepfill_jax import pictures
from deepfill_jax.app.filling import Filled
from deepfill_jax.app.reading import can_keep, mask_name, read, result_name
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inputs import Inputs
from deepfill_jax.pictures import Encoded, MaskOptions, Picture
from deepfill_jax.pictures.preview import preview

_PREVIEW_QUALITY = 92  # JPEG quality of previews.
# Messages call the options by their labels in the web UI.
LABELLED = MaskOptions(
    say_threshold='"Threshold" 0',
    say_unchecked='"Use the mask unchecked"',
    say_orientation='"Orientation"',
)


@dataclass(frozen=True)
class Source:
    """An input image with its mask."""

    image: Path
    name: str  # File name given by the client.
    jpeg: Mapping[str, Any] = field(default_factory=dict)  # See `Picture`; PNG files lose it.
    format: str = ""  # See `Picture`; PNG files lose it.
    mask: Path | None = None
    mask_name: str = ""
    mask_options: MaskOptions = LABELLED

    def read(self, max_pixels: int) -> Inputs:
        """Reads the image and its mask; raises the errors of `reading.read`."""
        image = Encoded(self.image.read_bytes(), self.name)
        mask = Encoded(self.mask.read_bytes(), self.mask_name) if self.mask else None
        inputs = read(image, mask, options=self.mask_options, max_pixels=max_pixels)
        picture = inputs.picture
        jpeg, format = self.jpeg or picture.jpeg, self.format or picture.format
        return inputs._replace(picture=replace(picture, jpeg=jpeg, format=format))


class Result(NamedTuple):
    """The files of a completed image, in a folder of its own."""

    before: Path  # Preview of the input.
    after: Path  # Preview of the result.
    png: Path
    mask: Path  # PNG mask of the hole before dilation; white is the hole.
    own: Path | None  # The result in the input's format, if that can be written and is not PNG.


def write_preview(path: Path, picture: Picture, hole: np.ndarray | None = None) -> None:
    """Writes a JPEG preview of an image and, if it is given, its hole, bool [H, W, 1]."""
    preview(picture, hole).save(path, quality=_PREVIEW_QUALITY)


def write_result(folder: Path, name: str, filled: Filled) -> Result:
    """Writes a completed image and its hole to a new folder.

    Args:
        folder: The folder, which does not exist yet.
        name: File name of the input image, after which the files are named.
        filled: The completed image.
    """
    folder.mkdir()
    before = filled.before
    after = replace(before, pixels=filled.pixels)
    shown = folder / "before.jpg", folder / "after.jpg"
    for path, picture in zip(shown, (before, after), strict=True):
        write_preview(path, picture)
    png = folder / result_name(name, "png", before.format)
    pictures.write(png, after.pixels, after)
    mask, white = folder / mask_name(name), filled.hole * np.uint8(255)
    pictures.write(mask, white, Picture(white))
    own = None
    if can_keep(before.format):
        own = folder / result_name(name, "same", before.format)
        try:
            pictures.write(own, after.pixels, after)
        except UsageError:  # The suffix can name a format that cannot hold the image.
            own = None
    return Result(*shown, png, mask, own)
