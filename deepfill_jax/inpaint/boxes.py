"""Rectangles in an image, and the boxes around the holes of a mask.

Masks are bool [H, W, 1], true in the hole; lengths are in pixels of the image.
"""

from typing import NamedTuple

import numpy as np
import scipy  # Loads scipy.ndimage when it is first used.


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

    def padded(self, margin: int, shape: tuple[int, ...]) -> "Box":
        """Returns the box, larger by a margin on each side, cut to an image of this shape."""
        top, left = max(self.top - margin, 0), max(self.left - margin, 0)
        bottom = min(self.top + self.height + margin, shape[0])
        right = min(self.left + self.width + margin, shape[1])
        return Box(top, left, bottom - top, right - left)

    def joined(self, other: "Box") -> "Box":
        """Returns the smallest box that contains both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        bottom = max(self.top + self.height, other.top + other.height)
        right = max(self.left + self.width, other.left + other.width)
        return Box(top, left, bottom - top, right - left)


def around(box: Box, side: int, shape: tuple[int, ...]) -> Box:
    """Returns a square centered on the box, shifted and cut to fit into an image of this shape."""
    starts, sides = [], []
    for start, length, limit in zip(box[:2], box[2:], shape, strict=False):
        sides.append(min(side, limit))
        starts.append(min(max(start + (length - sides[-1]) // 2, 0), limit - sides[-1]))
    return Box(*starts, *sides)


def tight(mask: np.ndarray, box: Box) -> Box:
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


def hole_boxes(mask: np.ndarray, cell: int) -> list[Box]:
    """Returns disjoint boxes around the holes, merged if they touch in a grid of `cell` pixels."""
    cells = pooled(mask, cell, whole=False)
    while True:
        found = scipy.ndimage.find_objects(scipy.ndimage.label(cells, np.ones((3, 3)))[0])
        if all(cells[box].all() for box in found):
            break
        for box in found:  # The filled box may touch others.
            cells[box] = True
    boxes = (
        Box(*(cell * s.start for s in b), *(cell * (s.stop - s.start) for s in b)) for b in found
    )
    return [tight(mask, box) for box in boxes]


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns which of several boxes, int [N, 4], share a pixel with a box: bool [N]."""
    starts, sides = boxes[:, :2], boxes[:, 2:]
    return np.all((box[:2] < starts + sides) & (starts < box[:2] + box[2:]), axis=1)


def distance_transform(mask: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distance of each pixel of the mask [H, W] to the nearest outside it."""
    return scipy.ndimage.distance_transform_edt(mask)


def pooled(mask: np.ndarray, cell: int, *, whole: bool) -> np.ndarray:
    """Returns the cells that contain hole or, if `whole`, only hole, bool [H / cell, W / cell].

    Beyond the image, the mask continues like its last row and column.
    """
    height, width = mask.shape[:2]
    cell = min(cell, max(height, width))  # A larger cell has the same value, but takes memory.
    padded = np.pad(mask[..., 0], ((0, -height % cell), (0, -width % cell)), mode="edge")
    rows, columns = (side // cell for side in padded.shape)
    cells = padded.reshape(rows, cell, columns, cell)
    return (np.min if whole else np.max)(cells, axis=(1, 3))
