"""The form fields of a request, with their limits and their descriptions for OpenAPI.

`mask_options` and `sides` are dependencies of the route, which group fields that belong together.
"""

from typing import Annotated

from fastapi import File, Form, params

from deepfill_jax.app.described import FormFile
from deepfill_jax.app.filling import Sides
from deepfill_jax.app.reading import Format
from deepfill_jax.inpaint.windows import Strategy
from deepfill_jax.pictures import MaskOptions, Orientation

MAX_LENGTH = 10_000  # Maximum of the fields that are lengths, in pixels.


def _length(description: str) -> params.Form:
    return Form(ge=0, le=MAX_LENGTH, description=description)


def _side(name: str) -> params.Form:
    return _length(f"Pixels by which the image is extended at the {name}.")


ImageFile = Annotated[FormFile, File(description="JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC.")]
MaskFile = Annotated[
    FormFile,
    File(
        description="Mask of the image's size; white is the hole. Without a mask, the "
        "transparent pixels of the image are the hole."
    ),
]
SketchFile = Annotated[
    FormFile,
    File(
        description="Sketch for guided models: white lines on black, of the image's size. "
        "Lines outside the hole are ignored."
    ),
]
ResizeStrategy = Annotated[Strategy, Form(description="How large images are processed.")]
Budget = Annotated[
    float,
    Form(
        gt=0,
        le=1e6,
        description="Megapixels that the network processes at most with the strategy auto. With "
        "less, thin holes of large images are filled faster, at a smaller scale.",
    ),
]
Detail = Annotated[
    bool,
    Form(
        description="Whether detail is copied from the known pixels into holes that are completed "
        "at a smaller scale, and for some models into thick holes at full size."
    ),
]
Seamless = Annotated[
    bool,
    Form(
        description="Whether the colors of the result are matched to the image at the border of "
        "the hole."
    ),
]
Dilation = Annotated[int, _length("Pixels by which the hole is dilated.")]
Feather = Annotated[
    int,
    _length(
        "Width in pixels, at most `dilate`, of the border of the dilated hole in which the result "
        "is blended with the image."
    ),
]
ResultFormat = Annotated[
    Format, Form(description="Format of the result: PNG, or the image's format.")
]
MaskThreshold = Annotated[
    float,
    Form(
        ge=0,
        lt=1,
        description="Fraction of white above which the mask is the hole; 0 for masks of class or "
        "instance numbers.",
    ),
]
MaskOrientation = Annotated[
    Orientation,
    Form(
        description="Orientation of the mask if the image has an EXIF orientation: that of the "
        "upright image or of its stored pixels; auto decides by the sizes."
    ),
]
MaskCheck = Annotated[
    bool,
    Form(
        description="Refuse masks without a hole, masks whose hole is the whole image, and masks "
        "of class numbers."
    ),
]
Top = Annotated[int, _side("top")]
Right = Annotated[int, _side("right")]
Bottom = Annotated[int, _side("bottom")]
Left = Annotated[int, _side("left")]


def mask_options(
    mask_threshold: MaskThreshold = 0.5,
    mask_orientation: MaskOrientation = "auto",
    check_mask: MaskCheck = True,
) -> MaskOptions:
    """Returns the options for reading the mask."""
    return MaskOptions(
        threshold=mask_threshold,
        check=check_mask,
        orientation=mask_orientation,
        say_unchecked="check_mask=false",
    )


def sides(top: Top = 0, right: Right = 0, bottom: Bottom = 0, left: Left = 0) -> Sides:
    """Returns the pixels by which the image is extended."""
    return Sides(top, right, bottom, left)
