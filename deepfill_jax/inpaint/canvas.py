"""The working copy of an image: reads windows for the network and pastes its output."""

from collections.abc import Sequence

import numpy as np

from deepfill_jax.errors import UsageError
from deepfill_jax.image import to_float, to_integers
from deepfill_jax.inpaint.detail import add_detail, is_thick
from deepfill_jax.inpaint.resize import resize
from deepfill_jax.inpaint.windows import Window


class Canvas:
    """An image whose hole shrinks with every window that is filled.

    Attributes:
        pixels: [H, W, 1] grey or [H, W, 3] RGB, of uint8, uint16, or floats in [-1, 1].
        levels: uint8 [H, W, 1], the levels of the pixels that are not filled yet, otherwise 0; see
            `windows.Plan`.
        stages: The windows that are not filled yet.
        sketch: bool [H, W, 1], the lines that guide the completion, or None.
        unknown: bool [H, W, 1], pixels without a color that are not filled, or None.
        detail: Whether windows that are scaled down get detail, see `detail.add_detail`.
        replace_detail: Whether thick holes get it in windows at full size too, in the place of the
            network's own.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        levels: np.ndarray,
        stages: Sequence[Sequence[Window]],
        sketch: np.ndarray | None = None,
        unknown: np.ndarray | None = None,
        *,
        detail: bool = False,
        replace_detail: bool = False,
    ):
        self.pixels, self.levels, self.stages = pixels.copy(), levels.copy(), list(stages)
        self.sketch, self.unknown = sketch, unknown
        self.detail, self.replace_detail = detail, replace_detail

    def pop_stage(self) -> Sequence[Window]:
        """Removes and returns the windows of the next stage; an empty list after the last one."""
        return self.stages.pop(0) if self.stages else []

    def read_window(self, window: Window) -> tuple[np.ndarray, ...]:
        """Returns a window: image, float32 [h, w, 3] in [-1, 1], and hole, bool [h, w, 1].

        If there is a sketch, the lines in this hole, bool [h, w, 1], follow. h and w are the size
        at which the window is filled. A scaled pixel is hole if it covers any hole pixel, so known
        pixels contain none of the hole. It is a line if it covers any line pixel, so thin lines
        remain. Pixels without a color are hole for the network.
        """
        image, hole = self._read(window)
        areas = [hole] if self.sketch is None else [hole, self.sketch[window.view.slices] & hole]
        if image.shape[:2] == (window.height, window.width):
            return image, *areas
        image = resize(np.where(hole, np.float32(0), image), window.height, window.width)
        areas = [resize(x.astype(np.float32), window.height, window.width) > 0 for x in areas]
        return image, *areas

    def paste(self, window: Window, filled: np.ndarray) -> None:
        """Copies the pixels of the window's level from its output, float32 [h, w, 3] in [-1, 1]."""
        _, _, height, width = window.view
        if filled.shape[:2] != (height, width):
            if self.detail:
                filled = add_detail(*self._read(window), filled)
            else:
                filled = np.clip(resize(filled, height, width), -1.0, 1.0)
        elif self.replace_detail:
            image, hole = self._read(window)
            if is_thick(hole):
                filled = add_detail(image, hole, filled)
        if self.pixels.shape[2] == 1:
            filled = filled.mean(axis=2, keepdims=True)
        view, levels = self.pixels[window.view.slices], self.levels[window.view.slices]
        rows, columns = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(window.hole.slices, window.view.slices, strict=True)
        )
        view, levels, filled = (x[rows, columns] for x in (view, levels, filled))
        here = levels == window.level
        np.copyto(view, _to_dtype(filled, view.dtype), where=here)
        levels[here] = 0

    def _read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Returns the view of a window: float32 [H, W, 3] in [-1, 1], and hole, bool [H, W, 1]."""
        image, hole = (
            _to_float(self.pixels[window.view.slices]),
            self.levels[window.view.slices] > 0,
        )
        if self.unknown is not None:
            hole = hole | self.unknown[window.view.slices]
        return image.repeat(3 // image.shape[2], axis=2), hole


def extend(
    pixels: np.ndarray, top: int, right: int, bottom: int, left: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pads an image by a number of pixels on each side, to be filled by the network (outpainting).

    Args:
        pixels: [H, W] or [H, W, C], of uint8, uint16 or floats in [-1, 1].
        top: Number of rows to add above the image, 0 or more.
        right: Number of columns to add on the right.
        bottom: Number of rows to add below.
        left: Number of columns to add on the left.

    Returns:
        The image with a mid-grey border, in its own type, and the mask of the border, bool
        [top + H + bottom, left + W + right, 1].

    Raises:
        UsageError: A number is negative.
    """
    if min(top, right, bottom, left) < 0:
        raise UsageError(
            f"An image can be extended by 0 or more pixels per side, not by {top}, {right}, "
            f"{bottom}, {left}."
        )
    margins = ((top, bottom), (left, right))
    grey = np.iinfo(pixels.dtype).max // 2 + 1 if pixels.dtype.kind == "u" else 0
    rest = ((0, 0),) * (pixels.ndim - 2)
    extended = np.pad(pixels, (*margins, *rest), constant_values=grey)
    mask = np.pad(np.zeros(pixels.shape[:2], bool), margins, constant_values=True)
    return extended, mask[..., np.newaxis]


def blend(pixels: np.ndarray, filled: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Blends two images [H, W, C] of one type; exact where `share` [H, W, 1] is 0 or 1."""
    rim = (share > 0) & (share < 1)
    mixed = _to_float(pixels) * (1 - share) + _to_float(filled) * share
    return np.where(rim, _to_dtype(mixed, pixels.dtype), np.where(share > 0, filled, pixels))


def _to_float(pixels: np.ndarray) -> np.ndarray:
    return to_float(pixels) if pixels.dtype.kind == "u" else pixels.astype(np.float32)


def _to_dtype(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return to_integers(image, dtype) if dtype.kind == "u" else image.astype(dtype)
