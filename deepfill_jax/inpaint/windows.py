"""The windows through which the network fills the holes of an image of any size.

Masks are bool [H, W, 1], true in the hole; lengths are in pixels of the image.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
import scipy  # Loads scipy.ndimage when it is first used.

Strategy = Literal["auto", "original", "resize", "crop"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

CONTEXT = 2.0  # Ratio of the side of a window to the longer side of its hole.
THIN = 0.05  # Below this fraction of its window, a hole (wires, text) is filled in parts.
CELLS = 8  # Grid cells per working size. Holes in the same or adjacent cells share a window.


class Box(NamedTuple):
    """A rectangle in an image."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns of the box."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def overlaps(self, other: "Box") -> bool:
        """Returns whether the boxes share a pixel."""
        return all(
            a.start < b.stop and b.start < a.stop
            for a, b in zip(self.slices, other.slices, strict=True)
        )


class Window(NamedTuple):
    """A part of the image that the network reads to fill a hole, and the size at which it does."""

    view: Box  # The pixels that the network reads.
    hole: Box  # Within `view`; hole pixels in this box are filled from the output.
    height: int  # Height of the network input: `view.height`, or less if scaled down.
    width: int

    @property
    def scale(self) -> float:
        """Factor by which `view` is scaled down, in (0, 1]."""
        return max(self.height, self.width) / max(self.view.height, self.view.width)


def choose_strategy(mask: np.ndarray, working_size: int) -> Strategy:
    """Returns the strategy that "auto" selects.

    It selects "original" up to twice the working size, since networks tolerate images somewhat
    larger than their training images. Above, it selects "crop", or "resize" if the windows of
    "crop" would read half of the image or more.
    """
    height, width = mask.shape[:2]
    if max(height, width) <= 2 * working_size:
        return "original"
    seen = sum(window.view.height * window.view.width for window in _cropped(mask, working_size))
    return "crop" if seen < height * width / 2 else "resize"


def find_windows(mask: np.ndarray, strategy: Strategy, working_size: int) -> list[Window]:
    """Returns the windows that fill the hole, in order; an empty list if there is no hole.

    Args:
        mask: bool [H, W, 1].
        strategy: "original": one window, the whole image. "resize": the same, scaled down to the
            working size. "crop": one window per hole, with a side of `CONTEXT` times the hole's,
            scaled down to the working size if it is larger. Nearby holes share a window; long thin
            holes are split into several.
        working_size: Side in pixels of the images that the network works best on.
    """
    if not mask.any():
        return []
    if strategy == "crop":
        return list(_cropped(mask, working_size))
    whole = Box(0, 0, *mask.shape[:2])
    return [_window(whole, whole, working_size if strategy == "resize" else max(mask.shape))]


def _cropped(mask: np.ndarray, working_size: int) -> Iterator[Window]:
    """Yields a window for each hole, or for each part of a thin hole."""
    for box in _hole_boxes(mask, max(working_size // CELLS, 1)):
        yield from _parts(mask, box, working_size)


def _hole_boxes(mask: np.ndarray, cell: int) -> list[Box]:
    """Returns disjoint boxes around the holes, merged if they touch in a grid of `cell` pixels."""
    height, width = mask.shape[:2]
    padded = np.pad(mask[..., 0], ((0, -height % cell), (0, -width % cell)))
    rows, columns = (side // cell for side in padded.shape)
    cells = np.any(padded.reshape(rows, cell, columns, cell), axis=(1, 3))
    while True:
        found = scipy.ndimage.find_objects(scipy.ndimage.label(cells, np.ones((3, 3)))[0])
        if all(cells[box].all() for box in found):
            break
        for box in found:  # The filled box may touch others.
            cells[box] = True
    boxes = (
        Box(*(cell * s.start for s in b), *(cell * (s.stop - s.start) for s in b)) for b in found
    )
    return [_tight(mask, box) for box in boxes]


def _tight(mask: np.ndarray, box: Box) -> Box:
    """Returns the bounding box of the hole pixels in a box that contains some."""
    hole = mask[box.slices][..., 0]
    rows, columns = (np.flatnonzero(hole.any(axis)) for axis in (1, 0))
    top, left = rows[0], columns[0]
    return Box(
        int(box.top + top),
        int(box.left + left),
        int(rows[-1] - top + 1),
        int(columns[-1] - left + 1),
    )


def _parts(mask: np.ndarray, box: Box, working_size: int) -> Iterator[Window]:
    """Yields the window of a hole's box; splits it in halves while it is thin and large."""
    side = max(working_size, int(CONTEXT * max(box.height, box.width)))
    is_thin = np.count_nonzero(mask[box.slices]) < THIN * side**2
    if side <= working_size or not is_thin:
        yield _window(_around(box, side, mask.shape[:2]), box, working_size)
        return
    along = box.height < box.width
    half = max(box.height, box.width) // 2
    first = box._replace(**({"width": half} if along else {"height": half}))
    second = Box(
        box.top + (0 if along else half),
        box.left + (half if along else 0),
        box.height - (0 if along else half),
        box.width - (half if along else 0),
    )
    for part in (first, second):
        if mask[part.slices].any():
            yield from _parts(mask, _tight(mask, part), working_size)


def _around(box: Box, side: int, shape: tuple[int, int]) -> Box:
    """Returns a square centered on the box, shifted and cut to fit into the image."""
    starts, sides = [], []
    for start, length, limit in zip(box[:2], box[2:], shape, strict=True):
        sides.append(min(side, limit))
        starts.append(min(max(start + (length - sides[-1]) // 2, 0), limit - sides[-1]))
    return Box(*starts, *sides)


def _window(view: Box, hole: Box, largest: int) -> Window:
    """Returns a window, scaled down if a side is above `largest`."""
    scale = min(1.0, largest / max(view.height, view.width))
    return Window(view, hole, *(max(round(scale * side), 1) for side in view[2:]))
