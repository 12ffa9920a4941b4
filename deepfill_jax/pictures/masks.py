"""Reads masks from files and arrays as bool [H, W, 1], and detects likely misinterpretations."""

import numpy as np
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures.decoding import MAX_PIXELS, Picture, decode, describe
from deepfill_jax.pictures.formats import LOSSY
from deepfill_jax.pictures.mask_options import UNCHECKED, MaskOptions
from deepfill_jax.pictures.sources import Source

# Pillow's luma weights (ITU-R BT.601), in 65536ths.
_LUMA = np.array([19595, 38470, 7471], np.uint32)
# Masks with soft edges have more distinct greys than this, and masks of class numbers have fewer.
_MAX_LABELS = 64


def read_mask(
    source: Source, options: MaskOptions = UNCHECKED, *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Reads a mask as bool [H, W, 1], true in the hole.

    White is the hole, as in `hole_of_values`; colours are converted to luma. Transparent pixels are
    not hole. In a transparent layer that is painted with a single colour, opaque pixels are the
    hole, whatever the colour.

    Args:
        source: An image source as for `read`; TIFF files may also hold int32 or float32 values.
        options: Threshold, inversion and checks.
        max_pixels: Maximum number of pixels, as for `read`.

    Raises:
        UsageError: The mask cannot be read, its values are not those of a mask, or a check fails.
    """
    return hole_of_picture(decode(source, max_pixels), options, name=describe(source, "The mask"))


def hole_of_picture(picture: Picture, options: MaskOptions, *, name: str) -> np.ndarray:
    """Reads a decoded mask as `read_mask` does; error messages begin with `name`."""
    try:
        area = _Area(picture.pixels, picture.alpha, options, is_lossy=picture.format in LOSSY)
    except UsageError as error:
        raise UsageError(f"{name} cannot be used as a mask: {error}") from error
    return area.checked(name)


def hole_of_values(
    values: np.ndarray, options: MaskOptions = UNCHECKED, *, name: str = "The mask"
) -> np.ndarray:
    """Reads a mask array as bool [H, W, 1], true in the hole, like `read_mask` reads a mask file.

    The value scale is the smallest of 1, 255 and 65535 that holds the largest value. Therefore
    masks of 0 and 1, 0 and 255, bool, 16 bits, grey levels and probabilities are read as expected.
    Integers have the scale 1 only if both 0 and 1 occur; an array of ones is almost black on the
    scale of 255.

    Args:
        values: Numbers [H, W], [H, W, 1] or RGB [H, W, 3]; or RGB with opacity [H, W, 4], of uint8,
            uint16 or floats in [0, 1]. None may be negative.
        options: Threshold, inversion and checks. With the threshold 0.5, 128 of 255 is hole, and
            127 is not.
        name: Name of the mask in messages.

    Raises:
        UsageError: The array has another shape or type, a value is not from 0 to 65535, or a check
            fails.
    """
    values = np.asarray(values)
    pixels = values[..., np.newaxis] if values.ndim == 2 else values
    has_opacity = pixels.ndim == 3 and pixels.shape[2] == 4
    is_mask = pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) and pixels.size
    if not is_mask or values.dtype.kind not in ("uf" if has_opacity else "buif"):
        raise UsageError(
            "A mask array must be numbers [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGB and "
            f"opacity, unsigned or floats), not {values.dtype} {values.shape}."
        )
    alpha = pixels[..., 3:] if has_opacity else None
    return _Area(pixels[..., :3], alpha, options).checked(name)


class _Area:
    """The hole of a mask, and the values from which it was read.

    Attributes:
        hole: bool [H, W, 1].
        grey: The values [H, W, 1] that were compared with the threshold.
        scale: Their largest possible value: 1, 255 or 65535.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        alpha: np.ndarray | None,
        options: MaskOptions,
        *,
        is_lossy: bool = False,
    ):
        """Takes pixels [H, W, 1 or 3] and opacity [H, W, 1]; `is_lossy`: see `formats.LOSSY`."""
        if not 0 <= options.threshold < 1:
            raise UsageError(
                f"A mask's threshold must be from 0 to below 1, not {options.threshold}."
            )
        self.options = options
        # The sums below are ten times as slow on a view of RGBA.
        pixels = np.ascontiguousarray(pixels)
        self.scale, self.grey = _scale(pixels, is_lossy), _luma(pixels)
        above = self._above(pixels, alpha)
        self.hole = ~above if options.invert else above

    def _above(self, pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
        threshold = self.options.threshold
        if alpha is None or (alpha == opaque(alpha)).all():
            return self.grey > threshold * self.scale
        opacity = alpha / np.float32(opaque(alpha))
        if (alpha == 0).any():
            painted = pixels[alpha[..., 0] > 0]
            if len(painted) and (painted == painted[0]).all():
                self.scale, self.grey = 1, opacity
                return opacity > threshold
        self.grey = self.grey * opacity
        return self.grey / np.float32(self.scale) > threshold

    def checked(self, name: str) -> np.ndarray:
        """Returns the hole; raises UsageError if the mask seems to be misinterpreted."""
        options = self.options
        if not options.check:
            return self.hole
        values = self._values()
        numbers = "class or instance numbers"
        if not self.hole.any() and self.grey.any() and not options.invert:
            raise UsageError(
                f"{name} has no hole: {values}, and none is above the threshold; if it holds "
                f"{numbers}, {options.remedy()}."
            )
        check_hole(self.hole, options, name=name, because=values)
        if self._is_labels():
            raise UsageError(
                f"{name} looks like a mask of {numbers} or of colours, of which only some are "
                f"above the threshold; {options.remedy()}{options.or_accept()}."
            )
        return self.hole

    def _values(self) -> str:
        """Describes the mask's values for messages; the result is empty for a black mask."""
        if not self.grey.any():
            return ""
        low, high = self.grey.min(), self.grey.max()
        if low == high:
            return f"its only value is {high:g} of {self.scale}"
        return f"its values are {low:g} to {high:g} of {self.scale}"

    def _is_labels(self) -> bool:
        """Whether the mask has a few values that fill areas, some of which are background.

        Such values fill squares of 3 x 3 pixels, unlike the grey levels of a smooth edge. The
        darkest value is the background itself.
        """
        grey = self.grey[..., 0]
        limit = self.options.threshold * self.scale
        if min(grey.shape) < 3 or not 3 <= len(_distinct(grey)) <= _MAX_LABELS:
            return False
        return bool((_flat_values(grey) <= limit).sum() > 1)


def check_hole(hole: np.ndarray, options: MaskOptions, *, name: str, because: str = "") -> None:
    """Refuses a hole, bool [H, W, 1], that is empty or the whole image, if checks are enabled.

    Raises:
        UsageError: The hole is empty or the whole image; the message begins with `name`.
    """
    if not options.check or (hole.any() and not hole.all()):
        return
    because = f" ({because})" if because else ""
    colour = "black" if options.invert else "white"
    if hole.any():
        raise UsageError(
            f"{name} makes the whole image the hole{because}, which leaves nothing to fill it "
            f"from; paint only the region to remove {colour}{options.or_accept()}."
        )
    raise UsageError(
        f"{name} has no hole{because}; paint the region to remove {colour}{options.or_accept()}."
    )


def _distinct(grey: np.ndarray) -> np.ndarray:
    if grey.dtype == np.uint8:  # A histogram is many times as fast as sorting.
        return np.flatnonzero(Image.fromarray(grey).histogram())
    return np.unique(grey)


def _flat_values(grey: np.ndarray) -> np.ndarray:
    """Returns the distinct values of [H, W] that fill at least one square of 3 x 3 pixels."""
    rows = (grey[:-2] == grey[1:-1]) & (grey[1:-1] == grey[2:])
    columns = (grey[:, :-2] == grey[:, 1:-1]) & (grey[:, 1:-1] == grey[:, 2:])
    flat = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:] & columns[1:-1]
    return np.unique(grey[1:-1, 1:-1][flat])


def _scale(values: np.ndarray, is_lossy: bool) -> int:
    # As Python's numbers, because 65535 is infinite in float16.
    smallest, largest = values.min().item(), values.max().item()
    if not 0 <= smallest <= largest <= 65535:  # Also if one is NaN.
        raise UsageError(
            f"A mask's values must be from 0 to 65535, not {smallest:g} to {largest:g}; map them "
            "to 0 for known pixels and 255 for the hole."
        )
    # An almost black frame of ones is not a mask of scale 1, nor is a JPEG with noise of 0 and 1.
    is_binary = not is_lossy and smallest < 1
    if largest <= 1 and (values.dtype.kind in "bf" or is_binary or largest < 1):
        return 1
    return 255 if largest <= 255 else 65535


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Converts grey or RGB to luma [H, W, 1]; integers are rounded as in Pillow."""
    if pixels.shape[2] == 1:
        return pixels
    if pixels.dtype == np.uint8:  # Ten times as fast as the sum below, with the same result.
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., np.newaxis]
    if pixels.dtype.kind == "f":
        return (pixels @ (_LUMA / 65536).astype(pixels.dtype))[..., np.newaxis]
    weights = _LUMA.astype(np.uint32 if pixels.dtype.kind == "u" else np.int64)
    red, green, blue = (
        pixels[..., channel].astype(weights.dtype) * weight
        for channel, weight in enumerate(weights)
    )
    return (red + green + blue + 32768 >> 16)[..., np.newaxis]


def opaque(alpha: np.ndarray) -> float:
    """Returns the value of full opacity: 255 or 65535 for integers, 1 for floats."""
    return np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1.0
