"""Options for reading and checking masks and for fitting them to their images."""

from typing import Literal, NamedTuple, get_args

Orientation = Literal["auto", "upright", "stored"]
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)


class MaskOptions(NamedTuple):
    """Options for reading a mask and fitting it to its image.

    Attributes:
        threshold: Fraction of the value scale above which a value is hole, see `hole_of_values`.
        invert: Exchange the hole and the known region, for masks whose holes are black.
        check: Refuse a mask without a hole, a mask whose hole is the whole image, and a mask of
            class or instance numbers of which only some are above the threshold.
        orientation: Orientation of a mask whose image has an EXIF orientation: the "upright" one,
            or that of the pixels as "stored"; "auto" decides by the sizes.
        resize: Resize a mask of another size to the image's size.
        say_threshold: Text for messages: how the user sets the threshold to 0; empty if that is
            impossible.
        say_unchecked: Text for messages: how the user turns `check` off; empty if that is
            impossible.
        say_orientation: Text for messages: how the user chooses an orientation.
        say_resize: Text for messages: how the user enables `resize`; empty if that is impossible.
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

    def remedy(self) -> str:
        """Returns for messages what to do with a mask of class or instance numbers."""
        if not self.say_threshold:
            return "paint all objects white"
        return f"{self.say_threshold} makes every value above 0 hole"

    def or_accept(self) -> str:
        """Returns for messages how to use a mask unchecked; empty if that is impossible."""
        return f", or accept it with {self.say_unchecked}" if self.say_unchecked else ""


CHECKED, UNCHECKED = MaskOptions(), MaskOptions(check=False)
