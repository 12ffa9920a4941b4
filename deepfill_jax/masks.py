"""Random hole masks for free-form inpainting, generated on the host.

Every mask is uint8 [H, W, 1] with 1 in the hole and 0 on known pixels, and has at least one hole
pixel. `rng` is a `numpy.random.Generator` (not a JAX key), so its seed determines the mask. The
published lengths and widths in pixels are for 256 px: they are drawn as published and then scaled
by min(H, W) / 256.
"""

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import MaskOptions, read_mask, resize_mask
from deepfill_jax.pictures.listing import list_images

logger = logging.getLogger(__name__)

# From rng, height and width to a mask. It can be pickled: other processes draw with it.
DrawMask = Callable[[np.random.Generator, int, int], np.ndarray]

PUBLISHED_SIZE = 256  # The picture side that every length below is for.
MAX_DRAWS = 10_000  # Attempts per irregular mask, before its area bounds count as unreachable.


def box(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a rectangle with even sides of 96 to 128 px, anywhere in the image.

    Source: TF1 release, `random_bbox` and `bbox2mask`. A box of 128 px is placed and then shrunk by
    up to 16 px on both sides of each axis. As in the source, the last row and column are never
    covered.
    """
    scale = min(height, width) / PUBLISHED_SIZE
    side = max(1, round(128 * scale))
    top, left = (rng.integers(max(1, length - side)) for length in (height, width))
    # Rounded down, unlike `side`, so that a tiny box cannot shrink to nothing.
    rows, columns = (int(rng.integers(17) * scale) for _ in range(2))
    mask = np.zeros((height, width, 1), np.uint8)
    mask[top + rows : top + side - rows, left + columns : left + side - columns] = 1
    return mask


def brush_strokes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws one to three zigzag strokes with a round brush of 12 to 39 px.

    Source: TF1 release, `brush_stroke_mask`; algorithm 1 of Yu et al., "Free-Form Image Inpainting
    with Gated Convolution" (ICCV 2019). The flips at the end of the algorithm are omitted, because
    the TF1 release discards their result.
    """
    scale = min(height, width) / PUBLISHED_SIZE
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 4)):
        vertices = _zigzag(rng, height, width)
        brush = max(1, int(int(rng.uniform(12, 40)) * scale))
        # OpenCV rounds the ends of thick lines: the disc that the release draws on every vertex.
        cv2.polylines(mask, [vertices], isClosed=False, color=1, thickness=brush)
    return mask[..., np.newaxis]


def _zigzag(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a path that turns back at every vertex: int32 [5 to 12, 2], as x and y."""
    count = rng.integers(4, 12)
    smallest = 2 * math.pi / 5 - rng.uniform(0, 2 * math.pi / 15)
    largest = 2 * math.pi / 5 + rng.uniform(0, 2 * math.pi / 15)
    angles = rng.uniform(smallest, largest, count)
    angles[::2] = 2 * math.pi - angles[::2]
    mean = math.hypot(height, width) / 8
    lengths = np.clip(rng.normal(mean, mean // 2, count), 0, 2 * mean)

    x, y = int(rng.integers(width)), int(rng.integers(height))
    vertices = [(x, y)]
    for angle, length in zip(angles, lengths, strict=True):
        x = int(min(max(x + length * math.cos(angle), 0), width))
        y = int(min(max(y + length * math.sin(angle), 0), height))
        vertices.append((x, y))
    return np.array(vertices, np.int32)


def box_and_strokes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws the union of a box and brush strokes, the training mask of the TF1 release."""
    return box(rng, height, width) | brush_strokes(rng, height, width)


def irregular(
    rng: np.random.Generator, height: int, width: int, *, min_area: float, max_area: float
) -> np.ndarray:
    """Draws four to nine bent strokes, with a new brush width at every bend, of a given total area.

    Source: MMagic, `get_irregular_mask`, with the values of its DeepFillv2 configuration (areas
    0.15 and 0.65). Masks are drawn until the area of one is within the bounds.

    Args:
        rng: Numpy generator.
        height: Rows of the mask.
        width: Columns of the mask.
        min_area: Lower bound of the hole's share of the image, exclusive.
        max_area: Upper bound of the hole's share of the image, exclusive.

    Raises:
        UsageError: None of `MAX_DRAWS` masks has such an area.
    """
    for _ in range(MAX_DRAWS):
        mask = _bent_strokes(rng, height, width)
        if min_area < cv2.countNonZero(mask) / mask.size < max_area:
            return mask[..., np.newaxis]
    raise UsageError(
        f"No irregular mask of {height} x {width} px with an area between {min_area} and "
        f"{max_area} came out of {MAX_DRAWS:,} draws; widen min_area and max_area "
        "(published: 0.15 and 0.65)."
    )


def _bent_strokes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws bent strokes of any area, uint8 [H, W]; source: MMagic, `random_irregular_mask`."""
    scale = min(height, width) / PUBLISHED_SIZE
    mask = np.zeros((height, width), np.uint8)
    for stroke in range(rng.integers(4, 10)):
        row, column = int(rng.integers(height)), int(rng.integers(width))
        bends = rng.integers(1, 6)
        # Whole radians below max_angle = 6. The 0.01 keeps a line off the axis.
        angles = 0.01 + rng.integers(6, size=bends)
        if stroke % 2 == 0:  # This tests the stroke, not the bend as in the paper: all bends turn.
            angles = 2 * math.pi - angles
        lengths = np.maximum(1, rng.integers(20, 128, size=bends) * scale)
        brushes = np.maximum(1, (rng.integers(10, 45, size=bends) * scale).astype(int)).tolist()
        # The sine moves the row: MMagic swaps the axes of its points when it draws.
        downs, rights = (lengths * np.sin(angles)).tolist(), (lengths * np.cos(angles)).tolist()
        for down, right, brush in zip(downs, rights, brushes, strict=True):
            start = (column, row)
            row, column = int(row + down), int(column + right)
            cv2.line(mask, start, (column, row), color=1, thickness=brush)
    return mask


def from_file(path: str | Path, height: int, width: int) -> np.ndarray:
    """Reads a mask as inpainting does and resizes it with nearest-neighbour sampling.

    Grey values above 127 are the hole, as in `test.py` of the TF1 release.

    Args:
        path: The image file, see `pictures.read_mask`.
        height: Rows of the mask.
        width: Columns of the mask.

    Raises:
        UsageError: The file cannot be read, seems to hold class numbers, or no pixel or every pixel
            is in the hole.
    """
    options = MaskOptions(say_threshold="", say_unchecked="")
    mask = resize_mask(read_mask(path, options), height, width).astype(np.uint8)
    if not mask.any():
        raise UsageError(
            f"The mask {path} has no hole at {height} x {width} px; paint the hole white."
        )
    return mask


def sampler(
    weights: Mapping[str, float], *, min_area: float, max_area: float, folder: str
) -> DrawMask:
    """Makes a function that draws masks of several kinds in proportion to their weights.

    One mask of each kind is drawn here, so that impossible settings fail immediately.

    Args:
        weights: Weight of each kind: "box", "strokes", "box_and_strokes", "irregular", "folder".
            Weights need not sum to 1; a kind with weight 0 is not used.
        min_area: See `irregular`.
        max_area: See `irregular`.
        folder: Folder of the kind "folder", whose mask files, also in subfolders, are drawn with
            equal probability.

    Raises:
        UsageError: A kind does not exist, a weight is negative, all weights are 0, the folder
            contains no usable mask, or no irregular mask has an area within the bounds.
    """
    makers: dict[str, Callable[[], DrawMask]] = {
        "box": lambda: box,
        "strokes": lambda: brush_strokes,
        "box_and_strokes": lambda: box_and_strokes,
        "irregular": lambda: functools.partial(irregular, min_area=min_area, max_area=max_area),
        "folder": lambda: _folder_sampler(folder),
    }
    if unknown := sorted(set(weights) - set(makers)):
        raise UsageError(
            f"There is no mask kind {', '.join(unknown)}; the kinds are {', '.join(makers)}."
        )
    shares = np.array(list(weights.values()), float)
    if not (shares >= 0).all() or not 0 < shares.sum() < math.inf:
        raise UsageError(f"The mask weights {dict(weights)} must be 0 or more, and not all 0.")

    draws = [makers[name]() for name, weight in weights.items() if weight > 0]
    shares = np.cumsum(shares[shares > 0])
    shares /= shares[-1]  # Exactly 1 at the end, which rng.random() stays below.
    for draw in draws:
        draw(np.random.default_rng(0), PUBLISHED_SIZE, PUBLISHED_SIZE)

    return functools.partial(_draw_one, draws, shares)


def _draw_one(
    draws: Sequence[DrawMask], shares: np.ndarray, rng: np.random.Generator, height: int, width: int
) -> np.ndarray:
    return draws[int(np.searchsorted(shares, rng.random(), side="right"))](rng, height, width)


def _folder_sampler(folder: str) -> DrawMask:
    """Draws files of a folder; a file that is not usable as a mask is skipped and logged once."""
    # Includes formats that masks cannot have, so that they are reported. An empty name would be the
    # current folder.
    found = list_images(folder).paths if folder and Path(folder).is_dir() else []
    paths = sorted(Path(path) for path in found)
    if not paths:
        raise UsageError(
            f"The mask folder {folder!r} does not exist or holds no pictures; name one that does, "
            "or give the mask kind folder no weight."
        )
    return functools.partial(_draw_file, folder, paths, set())


def _draw_file(
    folder: str,
    paths: Sequence[Path],
    named: set[Path],
    rng: np.random.Generator,
    height: int,
    width: int,
) -> np.ndarray:
    first = int(rng.integers(len(paths)))
    for offset in range(len(paths)):
        path = paths[(first + offset) % len(paths)]
        try:
            return from_file(path, height, width)
        except UsageError as error:
            if path not in named:
                named.add(path)
                logger.warning("%s The next mask of the folder takes its place.", error)
    raise UsageError(
        f"The mask folder {folder} holds no usable mask; see the warnings. If holes cover whole "
        "images, the files seem inverted: the hole must be white."
    )
