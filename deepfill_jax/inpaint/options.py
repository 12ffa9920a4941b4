"""The options of `Inpainter`, checked before any image is read."""

import math
import numbers
from dataclasses import dataclass
from typing import TypedDict

from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.windows import BUDGET, STRATEGIES, Strategy
from deepfill_jax.pictures import ORIENTATIONS, MaskOptions, Orientation


class Options(TypedDict, total=False):
    """Keyword arguments of `Inpainter.__call__` and `Inpainter.complete`; see `Settings`."""

    strategy: Strategy
    budget: float
    detail: bool
    seamless: bool
    dilate: int
    feather: int
    mask_threshold: float
    mask_orientation: Orientation
    check_mask: bool
    value_range: tuple[float, float] | None


@dataclass(frozen=True)
class Settings:
    """The options with their defaults.

    Attributes:
        strategy: How large images are processed: "auto", "original", "resize" or "crop", see
            `windows.plan_windows`.
        budget: Limit in megapixels of what the network processes for an image, for the strategy
            "auto" only: with less, thin holes of large images are filled at a smaller scale.
        detail: Whether detail is copied from the known pixels into holes that are completed at a
            smaller scale, and if the model's metadata ask for it, into thick holes at full size,
            see `detail.add_detail`.
        seamless: Whether the completion meets the border of the hole without a step in color, see
            `seamless.match_border`; otherwise it has the colors that the network predicts.
        dilate: Pixels by which the hole is dilated, 0 or more.
        feather: Width in pixels, at most `dilate`, of the blended border.
        mask_threshold: Fraction of the mask's value scale above which a value is hole, from 0 to
            below 1; 0 for masks of class or instance numbers. See `pictures.hole_of_values`.
        mask_orientation: The pixels on which the mask of an image with an EXIF orientation was
            drawn: "auto", "upright" or "stored", see `pictures.MaskOptions`.
        check_mask: Whether masks that are empty, cover the whole image, or store class numbers are
            rejected.
        value_range: Black and white of images of floats; None: (-1, 1), with a warning for images
            that are probably in [0, 1].

    Raises:
        UsageError: A value is invalid.
    """

    strategy: Strategy = "auto"
    budget: float = BUDGET
    detail: bool = True
    seamless: bool = True
    dilate: int = 0
    feather: int = 0
    mask_threshold: float = 0.5
    mask_orientation: Orientation = "auto"
    check_mask: bool = True
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_edges(self.dilate, self.feather)
        check_budget(self.budget, self.strategy)
        for name, value, known in (
            ("strategy", self.strategy, STRATEGIES),
            ("mask_orientation", self.mask_orientation, ORIENTATIONS),
        ):
            if value not in known:
                raise UsageError(f"{name}={value!r} must be one of {', '.join(known)}.")
        if not isinstance(self.mask_threshold, numbers.Real) or not 0 <= self.mask_threshold < 1:
            raise UsageError(
                f"mask_threshold={self.mask_threshold!r} must be from 0 to below 1; with 0, every "
                "value above 0 is hole."
            )
        if self.value_range is not None and not _is_range(self.value_range):
            raise UsageError(
                f"value_range={self.value_range!r} must be two finite numbers, black and white, "
                "such as (0, 1)."
            )

    def mask_options(self) -> MaskOptions:
        """Returns the options with which masks are read."""
        return MaskOptions(
            threshold=self.mask_threshold,
            check=self.check_mask,
            orientation=self.mask_orientation,
        )


def check_edges(dilate: int, feather: int) -> None:
    """Checks the options of the hole's edge.

    Raises:
        UsageError: A value is not an integer, or `feather` is negative or larger than `dilate`.
    """
    for name, value in (("dilate", dilate), ("feather", feather)):
        if not isinstance(value, numbers.Integral):
            raise UsageError(f"{name}={value!r} must be a whole number of pixels.")
    if not 0 <= feather <= dilate:
        raise UsageError(
            f"feather={feather} must be from 0 to dilate={dilate}: it blends within the "
            "rim that dilate adds to the hole."
        )


def check_budget(budget: float, strategy: Strategy) -> None:
    """Checks the budget of the strategy "auto".

    Raises:
        UsageError: It is not a positive, finite number, or is set for another strategy.
    """
    if not isinstance(budget, numbers.Real) or not 0 < budget < math.inf:
        raise UsageError(f"budget={budget!r} must be a positive number of megapixels.")
    if budget != BUDGET and strategy != "auto":
        raise UsageError(
            f"budget={budget:g} has no effect with strategy={strategy!r}; only auto has a budget."
        )


def _is_range(values: tuple[float, float]) -> bool:
    try:
        black, white = (float(x) for x in values)
    except (TypeError, ValueError):
        return False
    return math.isfinite(black) and math.isfinite(white) and black < white
