"""How masks are read, checked and fitted to their images."""

from typing import Literal, NamedTuple, get_args

Orientation = Literal["auto", "upright", "stored"]
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)


class MaskOptions(NamedTuple):
    """How a mask is read and fitted to its image.

    Attributes:
        threshold: Part of the value scale above which a value is hole, see `hole_of_values`.
        invert: The hole is what would otherwise be known, as in masks with black holes.
        check: Refuse a mask without a hole, a mask whose hole is the whole image, and a mask of
            class or instance numbers of which only some are above the threshold.
        orientation: What a mask of an image with an EXIF orientation was drawn on: the "upright"
            image or the pixels as "stored". "auto" decides by the sizes.
        resize: Stretch a mask of another size to the image's.
        say_threshold: How the user sets the threshold to 0, for messages.
        say_unchecked: How the user turns `check` off.
        say_orientation: How the user chooses an orientation.
        say_resize: How the user asks for `resize`; empty if that is not possible.
    """

    threshold: float = 0.5
    invert: bool = False
    check: bool = True
    orientation: Orientation = "auto"
    resize: bool = False
    say_threshold: str = "mask_threshold=0"
    say_unchecked: str = "check_mask=False"
    say_orientation: str = "mask_orientation"
    say_resize: str = ""


CHECKED, UNCHECKED = MaskOptions(), MaskOptions(check=False)
