"""The windows through which the network fills the holes of an image of any size.

The scale of a window follows from the thickness of its hole, the diameter of the largest disc in
it, and not from its extent: a wire that crosses the whole image is filled at full size. A picture
with thin and thick holes is filled at several scales, thick holes first.

Masks are bool [H, W, 1], true in the hole; lengths are in pixels of the image.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from deepfill_jax.inpaint.boxes import (
    Box,
    around,
    distance_transform,
    hole_boxes,
    overlap,
    pooled,
    tight,
)

Strategy = Literal["auto", "original", "resize", "crop"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

CONTEXT = 2.0  # Ratio of the side of a window to the thickness of the thickest hole in it.
FILLED = 0.75  # Largest extent of what a window fills, relative to its side.
CELLS = 8  # Grid cells per window side. Holes in the same or adjacent cells are one hole.
FINENESS = 16  # Cells per thickness in the grid on which thickness is measured.
# Pixels up to this distance from the axis of a thick part, relative to its thickness, belong to it.
NEAR = 0.75
BUDGET = 32.0  # Megapixels that "auto" processes for one image, unless the user sets a limit.


class Window(NamedTuple):
    """A part of the image that the network reads to fill a hole, and the size at which it does."""

    view: Box  # The pixels that the network reads.
    hole: Box  # Within `view`; hole pixels of the window's level in this box are filled.
    height: int  # Height of the network input: `view.height`, or less if scaled down.
    width: int
    level: int = 1  # Level of the pixels that are filled, see `Plan`.

    @property
    def scale(self) -> float:
        """Factor by which `view` is scaled down, in (0, 1]."""
        return max(self.height, self.width) / max(self.view.height, self.view.width)


class Plan(NamedTuple):
    """The windows that fill a mask.

    Attributes:
        strategy: The strategy used; never "auto".
        levels: uint8 [H, W, 1]; 0 outside the hole, otherwise the level of the window that fills
            the pixel. Windows of higher levels come first and have smaller scales.
        stages: Lists of windows that are filled one after the other. The windows of a stage are
            filled at the same time, since none reads pixels that another one fills.
    """

    strategy: Strategy
    levels: np.ndarray
    stages: list[list[Window]]

    @property
    def scale(self) -> float:
        """Smallest scale of a window; 1.0 if none is scaled down."""
        return min((window.scale for stage in self.stages for window in stage), default=1.0)

    @property
    def megapixels(self) -> float:
        """Millions of pixels that the network processes: the sum of all windows, as scaled down."""
        return sum(window.height * window.width for stage in self.stages for window in stage) / 1e6


def plan_windows(
    mask: np.ndarray, strategy: Strategy, working_size: int, budget: float = BUDGET
) -> Plan:
    """Returns the windows that fill the hole; no stage if there is no hole.

    Args:
        mask: bool [H, W, 1].
        strategy: "original": one window, the whole image. "resize": the same, scaled down to the
            working size. "crop": windows of the working size over the hole, each scaled down until
            its side is `CONTEXT` times the thickness of the hole. "auto": "original" up to twice
            the working size, since networks tolerate images somewhat larger than their training
            images. Above, "crop". If this exceeds the budget, the scale of the thin holes is halved
            until it does not, at most until a single window of the working size is left.
        working_size: Side in pixels of the images that the network works best on.
        budget: Limit of `Plan.megapixels` for the strategy "auto".
    """
    shape = mask.shape[:2]
    is_small = max(shape) <= 2 * working_size and mask.size <= 1e6 * budget
    if strategy == "auto" and is_small:
        strategy = "original"
    if strategy in ("original", "resize") or not mask.any():
        whole = Box(0, 0, *shape)
        largest = working_size if strategy == "resize" else max(shape)
        windows = [_window(whole, whole, largest, 1)] if mask.any() else []
        return Plan("crop" if strategy == "auto" else strategy, mask.astype(np.uint8), [windows])
    levels, thickest = measure_levels(mask, working_size)
    lowest = 1
    plan = _cropped(levels, thickest, lowest, working_size)
    while strategy == "auto" and plan.megapixels > budget and sum(map(len, plan.stages)) > 1:
        lowest += 1
        np.maximum(levels, lowest, out=levels, where=mask)
        plan = _cropped(levels, thickest, lowest, working_size)
    return plan


def measure_levels(mask: np.ndarray, working_size: int) -> tuple[np.ndarray, list[float]]:
    """Sorts the pixels of a hole by the thickness of the hole around them.

    Level 1 is thin enough for windows at full size, level 2 for windows scaled down by 2, level 3
    by 4, and so on. A pixel has the level of the largest disc in the hole that contains it, or that
    is near to it. Beyond the edge of the image, the hole continues: nothing is known there either.

    Returns:
        The levels, uint8 [H, W, 1], and the largest thickness of each level from 1 on.
    """
    levels = mask.astype(np.uint8)
    limit = working_size / CONTEXT
    cell = max(int(limit / FINENESS), 1)
    hole = pooled(mask, cell, whole=True)
    # Without any known pixel, the hole is thicker than every limit.
    depth = cell * distance_transform(hole) if not hole.all() else np.full(hole.shape, np.inf)
    thickness = 2 * float(depth.max())
    thickest = [min(thickness, limit)]
    # A window that sees the whole image is the last.
    while thickness > limit and CONTEXT * limit < max(mask.shape):
        distance = cell * distance_transform(depth <= limit / 2)
        thick = (distance <= NEAR * limit).repeat(cell, 0).repeat(cell, 1)
        levels[thick[: mask.shape[0], : mask.shape[1]] & mask[..., 0]] = len(thickest) + 1
        limit *= 2
        thickest.append(min(thickness, limit))
    return levels, thickest


def _cropped(levels: np.ndarray, thickest: Sequence[float], lowest: int, working_size: int) -> Plan:
    """Returns the windows of the strategy "crop" for these levels, of which none is below `lowest`.

    Windows of the lowest level are scaled down by the full factor of this level. The others are
    scaled down only as far as their thickest hole requires.
    """
    stages: list[list[Window]] = []
    shape = levels.shape[:2]
    for level in range(int(levels.max()), lowest - 1, -1):
        part = levels == level
        if not part.any():
            continue
        thickness = thickest[min(level, len(thickest)) - 1]
        side = working_size * 2 ** (level - 1)
        if level > lowest:
            side = min(side, round(CONTEXT * thickness))
        # A window that reaches from edge to edge fills everything between them.
        inner = [limit if side >= limit else max(round(FILLED * side), 1) for limit in shape]
        pieces = [
            piece
            for box in hole_boxes(part, max(side // CELLS, 1))
            for piece in _pieces(part, box, inner)
        ]
        windows = [
            _window(around(hole, side, shape), hole, working_size, level)
            for hole in _packed(pieces, inner)
        ]
        stages += _independent(windows)
    return Plan("crop", levels, stages)


def _pieces(part: np.ndarray, box: Box, inner: Sequence[int]) -> Iterator[Box]:
    """Divides a box into boxes of at most `inner` rows and columns; drops those without hole."""
    rows, columns = (-(-side // limit) for side, limit in zip(box[2:], inner, strict=True))
    tops = np.linspace(box.top, box.top + box.height, rows + 1).astype(int)
    lefts = np.linspace(box.left, box.left + box.width, columns + 1).astype(int)
    for top, bottom in itertools.pairwise(tops.tolist()):
        for left, right in itertools.pairwise(lefts.tolist()):
            piece = Box(top, left, bottom - top, right - left)
            if part[piece.slices].any():
                yield tight(part, piece)


def _packed(boxes: list[Box], inner: Sequence[int]) -> Iterator[Box]:
    """Joins boxes that fit together into `inner` rows and columns, from the top left on."""
    while boxes:
        bottom = min(box.top for box in boxes) + inner[0]
        shelf = [box for box in boxes if box.top + box.height <= bottom]
        boxes = [box for box in boxes if box.top + box.height > bottom]
        first, *others = sorted(shelf, key=lambda box: box.left)
        for box in others:
            joined = first.joined(box)
            if joined.width > inner[1]:
                yield first
                joined = box
            first = joined
        yield first


def _independent(windows: list[Window]) -> list[list[Window]]:
    """Sorts windows into stages, in none of which a window reads pixels that another one fills."""
    views, holes = (np.array([window[i] for window in windows]) for i in (0, 1))
    stages: list[list[Window]] = []
    stage_of = np.empty(len(windows), int)
    for i, window in enumerate(windows):
        reads = overlap(views[i], holes[:i]) | overlap(holes[i], views[:i])
        taken = set(stage_of[:i][reads])
        stage_of[i] = next(stage for stage in itertools.count() if stage not in taken)
        if stage_of[i] == len(stages):
            stages.append([])
        stages[stage_of[i]].append(window)
    return stages


def _window(view: Box, hole: Box, largest: int, level: int) -> Window:
    """Returns a window, scaled down if a side is above `largest`."""
    scale = min(1.0, largest / max(view.height, view.width))
    height, width = (max(round(scale * side), 1) for side in view[2:])
    return Window(view, hole, height, width, level)
