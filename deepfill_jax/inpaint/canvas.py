"""A picture while its holes are filled: what the network sees of it, and where its fill goes."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.image import to_float, to_integers
from deepfill_jax.inpaint.windows import Window


class Canvas:
    """A picture whose hole shrinks with every window that is filled.

    Attributes:
        pixels: [H, W, 1] grey or [H, W, 3] RGB, of uint8, uint16, or floats in [-1, 1].
        hole: bool [H, W, 1], what is still to be filled.
        windows: Through which to do it.
        sketch: bool [H, W, 1], the lines that guide it, or None.
        unknown: bool [H, W, 1], pixels that have no color but are not filled, or None.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        hole: np.ndarray,
        windows: Sequence[Window],
        sketch: np.ndarray | None = None,
        unknown: np.ndarray | None = None,
    ):
        self.pixels, self.hole, self.windows = pixels.copy(), hole.copy(), list(windows)
        self.sketch, self.unknown = sketch, unknown

    def pop_independent(self) -> list[Window]:
        """Removes and returns the windows that see no hole of one that is before them.

        They may be filled at once. The others see more when these are filled.
        """
        ready, later = [], []
        for window in self.windows:
            before = (*ready, *later)
            sees = any(window.view.overlaps(other.hole) for other in before)
            (later if sees else ready).append(window)
        self.windows = later
        return ready

    def read_window(self, window: Window) -> tuple[np.ndarray, ...]:
        """Returns what is in a window: float32 [h, w, 3] in [-1, 1], and its hole, bool [h, w, 1].

        With a sketch also the lines in this hole, bool [h, w, 1]. h and w are those at which the
        window is filled. A pixel that holds a bit of the hole is hole, and so no known pixel holds
        any of it; one that holds a bit of a line is a line, however thin. Pixels without a color
        are hole for the network.
        """
        pixels, hole = self.pixels[window.view.slices], self.hole[window.view.slices]
        if self.unknown is not None:
            hole = hole | self.unknown[window.view.slices]
        areas = [hole] if self.sketch is None else [hole, self.sketch[window.view.slices] & hole]
        image = _to_float(pixels)
        if image.shape[2] == 1:
            image = image.repeat(3, axis=2)
        if image.shape[:2] == (window.height, window.width):
            return image, *areas
        image = _resize(np.where(hole, np.float32(0), image), window.height, window.width)
        areas = [_resize(x.astype(np.float32), window.height, window.width) > 0 for x in areas]
        return image, *areas

    def paste(self, window: Window, filled: np.ndarray) -> None:
        """Takes the hole's pixels from a filled window, float32 [h, w, 3] in [-1, 1]."""
        _, _, height, width = window.view
        if filled.shape[:2] != (height, width):
            filled = np.clip(_resize(filled, height, width), -1.0, 1.0)
        if self.pixels.shape[2] == 1:
            filled = filled.mean(axis=2, keepdims=True)
        view, hole = self.pixels[window.view.slices], self.hole[window.view.slices]
        rows, columns = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(window.hole.slices, window.view.slices, strict=True)
        )
        view, hole, filled = (x[rows, columns] for x in (view, hole, filled))
        np.copyto(view, _to_dtype(filled, view.dtype), where=hole)
        hole[...] = False


def extend(
    pixels: np.ndarray, top: int, right: int, bottom: int, left: int
) -> tuple[np.ndarray, np.ndarray]:
    """Enlarges a picture by so many pixels a side, for the network to imagine what is there.

    Args:
        pixels: [H, W] or [H, W, C], of uint8, uint16 or floats in [-1, 1].
        top: Rows above, 0 or more; `right`, `bottom` and `left` likewise, clockwise.
        right: Columns.
        bottom: Rows.
        left: Columns.

    Returns:
        The picture with mid grey around it, of its type, and bool [top + H + bottom,
        left + W + right, 1], true where it is new.

    Raises:
        UsageError: A number is negative.
    """
    if min(top, right, bottom, left) < 0:
        raise UsageError(
            f"A picture is extended by 0 pixels or more a side, not by {top}, {right}, {bottom}, "
            f"{left}."
        )
    margins = ((top, bottom), (left, right))
    grey = np.iinfo(pixels.dtype).max // 2 + 1 if pixels.dtype.kind == "u" else 0
    rest = ((0, 0),) * (pixels.ndim - 2)
    extended = np.pad(pixels, (*margins, *rest), constant_values=grey)
    mask = np.pad(np.zeros(pixels.shape[:2], bool), margins, constant_values=True)
    return extended, mask[..., np.newaxis]


def blend(pixels: np.ndarray, filled: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mixes two pictures [H, W, C] of one type; where `share` [H, W, 1] is 0 or 1, exactly."""
    rim = (share > 0) & (share < 1)
    mixed = _to_float(pixels) * (1 - share) + _to_float(filled) * share
    return np.where(rim, _to_dtype(mixed, pixels.dtype), np.where(share > 0, filled, pixels))


def _to_float(pixels: np.ndarray) -> np.ndarray:
    return to_float(pixels) if pixels.dtype.kind == "u" else pixels.astype(np.float32)


def _to_dtype(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return to_integers(image, dtype) if dtype.kind == "u" else image.astype(dtype)


def _resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Float32 [H, W, C] at another size: means of areas if it is smaller, cubic if it is larger."""
    how = Image.Resampling.BOX if height * width < x[..., 0].size else Image.Resampling.BICUBIC
    channels = (Image.fromarray(x[..., c]).resize((width, height), how) for c in range(x.shape[2]))
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)
