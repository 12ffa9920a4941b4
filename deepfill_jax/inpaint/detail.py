"""Detail of completions, copied from the known pixels.

A window that is scaled down by a factor f is completed without structures smaller than f pixels. At
full size, a network that was trained briefly predicts them badly: blurred, or in regular patterns.
These structures are the residual: the difference between the image and its smooth version, enlarged
to the image's size. It is copied from the known place whose smooth version is most similar, as in
contextual residual aggregation (Yi et al., CVPR 2020, section 3.2,
https://arxiv.org/abs/2005.09704). There, each place gets the average of all residuals, weighted by
attention. Here it gets the residual of one source, which stays sharp:

    smooth    the completed window, slightly blurred
    match     for each cell of 4x4 pixels in the hole: the sources in the most similar places
    agree     among these, adjacent cells take adjacent sources where that costs little
    copy      the residuals of the sources, blended where cells meet

The code uses numpy, because JAX would compile a program for each size of window.

Lengths are in pixels of the completed window, positions in units of `STRIDE` pixels. Letters in
shapes: H and W the sides of the image's window, h and w those of the completed window, I and J the
positions in h and w, Q cells, K candidates for the source of a cell, D length of a patch.
"""

import numpy as np
import scipy  # Loads scipy.ndimage when it is first used.

from deepfill_jax.inpaint.boxes import distance_transform, pooled
from deepfill_jax.inpaint.resize import resize

THICK = 24  # See `is_thick`.
# Standard deviation. Finer structures are copied, coarser ones are the network's. On 12 photographs
# of 6 to 20 megapixels, LPIPS is 0.0403, with 1.0 0.0416, and without copied detail 0.0624.
BLUR = 1.5
LARGEST = 512  # Larger completions are scaled down: time grows with the square of their area.
CELL = 4  # Side of a cell.
STRIDE = 2  # Distance of adjacent positions of sources.
MARGIN = 4  # Width of the surroundings that are compared with a cell.
KNOWN = 2  # Width of the part of the surroundings that must be known in a source.
OVERLAP = 1.0  # Width of the border in which cells are blended, on each side.
NEAREST = 8  # Sources considered for each cell, beside those next to its neighbours' sources.
AGREEMENT = 1.0  # Value of a neighbour that agrees, relative to the median distance of matches.
ROUNDS = 12  # Number of rounds in which sources are chosen; each changes every second cell.
BLOCK = 64  # Cells that are compared with all sources at once.

_NEIGHBOURS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])
_STEP = CELL // STRIDE  # Positions from one cell to the next.


def add_detail(image: np.ndarray, hole: np.ndarray, completed: np.ndarray) -> np.ndarray:
    """Enlarges a completion to the size of the image, and adds detail in the hole.

    Args:
        image: Float32 [H, W, 3] in [-1, 1]; its pixels in the hole have no influence.
        hole: bool [H, W, 1].
        completed: Float32 [h, w, 3] in [-1, 1], the completion of the image scaled to this size;
            at most H, W.

    Returns:
        Float32 [H, W, 3] in [-1, 1]; without detail if nothing is known that it could be copied
        from. Only its pixels in the hole are meaningful.
    """
    height, width = image.shape[:2]
    scale = min(LARGEST / max(completed.shape[:2]), 1.0)
    h, w = (max(round(scale * side), 1) for side in completed.shape[:2])
    # The blur mixes pixels of the hole into its border.
    unknown = scipy.ndimage.maximum_filter(resize(hole.astype(np.float32), h, w)[..., 0] > 0, 3)
    available = available_sources(unknown)
    if not available.any():
        return np.clip(resize(completed, height, width), -1.0, 1.0)
    cells = np.argwhere(pooled(unknown[..., np.newaxis], CELL, whole=False)) * _STEP
    smooth = scipy.ndimage.gaussian_filter(resize(completed, h, w), (BLUR, BLUR, 0.0))
    sources = choose_sources(smooth, available, cells)
    enlarged = resize(smooth, height, width)
    factors = np.array([height / h, width / w])
    copied = _copy(image - enlarged, cells * STRIDE, sources * STRIDE, factors)
    return np.clip(enlarged + copied, -1.0, 1.0)


def is_thick(hole: np.ndarray) -> bool:
    """Returns whether a disc with a diameter of `THICK` fits into the hole, bool [H, W, 1].

    In thinner holes, a completion at full size follows the border, and copied detail raises hole L1
    (`scenes`, by 5 % at 12 px).
    """
    return bool(hole.all() or 2 * distance_transform(hole[..., 0]).max() >= THICK)


def available_sources(unknown: np.ndarray) -> np.ndarray:
    """Returns where a cell with known surroundings begins, bool [I, J], for a mask bool [h, w]."""
    available = np.zeros([-(-side // STRIDE) for side in unknown.shape], bool)
    side, first = CELL + 2 * KNOWN, KNOWN // STRIDE
    if min(unknown.shape) >= side:
        windows = np.lib.stride_tricks.sliding_window_view(~unknown, (side, side))
        known = np.all(windows[::STRIDE, ::STRIDE], axis=(2, 3))
        rows, columns = known.shape
        available[first : first + rows, first : first + columns] = known
    return available


def choose_sources(smooth: np.ndarray, available: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Chooses a source for each cell.

    Args:
        smooth: Float32 [h, w, 3].
        available: bool [I, J], the positions of sources; at least one.
        cells: int [Q, 2], the positions of the cells.

    Returns:
        int [Q, 2], the positions of the sources.
    """
    patches = _patches(smooth)
    distances, nearest = _nearest(patches, np.argwhere(available), cells)
    unit = AGREEMENT * np.median(distances[:, 0])
    neighbours = _neighbours(cells // _STEP)
    chosen = nearest[:, 0]
    for number in range(ROUNDS):
        turn = (cells.sum(1) // _STEP + number) % 2 == 0
        continued = chosen[neighbours[turn]] - _STEP * _NEIGHBOURS  # [Q, 4, 2]
        inside = (continued >= 0).all(-1) & (continued < available.shape).all(-1)
        continued = np.where(inside[..., np.newaxis], continued, 0)
        possible = (neighbours[turn] >= 0) & inside & available[tuple(continued.T)].T
        others = np.concatenate([chosen[turn, np.newaxis], continued], axis=1)
        candidates = np.concatenate([nearest[turn], others], axis=1)  # [Q, K, 2]
        distance = np.concatenate(
            [distances[turn], _distances(patches, cells[turn], others)], axis=1
        )
        distance[:, -len(_NEIGHBOURS) :][~possible] = np.inf
        agree = (candidates[:, :, np.newaxis] == continued[:, np.newaxis]).all(-1)  # [Q, K, 4]
        agreeing = (agree & possible[:, np.newaxis]).sum(-1)
        best = np.argmin(distance - unit * agreeing, axis=1)
        chosen[turn] = candidates[np.arange(len(best)), best]
    return chosen


def _patches(smooth: np.ndarray) -> np.ndarray:
    """Returns the cell at each position of [h, w, 3] with its surroundings: [I, J, D].

    The blur allows to take only every second pixel.
    """
    margins = (MARGIN, MARGIN + CELL), (MARGIN, MARGIN + CELL), (0, 0)
    sampled = np.pad(smooth, margins, mode="edge")[::STRIDE, ::STRIDE]
    side = (CELL + 2 * MARGIN) // STRIDE
    windows = np.lib.stride_tricks.sliding_window_view(sampled, (side, side), axis=(0, 1))
    rows, columns = (-(-length // STRIDE) for length in smooth.shape[:2])
    return windows[:rows, :columns].reshape(rows, columns, -1)


def _nearest(
    patches: np.ndarray, sources: np.ndarray, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances of the best sources of each cell, [Q, K], and the sources, [Q, K, 2].

    K is `NEAREST`, or the number of sources; the nearest source comes first.
    """
    number = min(NEAREST, len(sources))
    known = patches[tuple(sources.T)]
    lengths = np.sum(known**2, axis=1)
    found = []
    for block in np.split(cells, range(BLOCK, len(cells), BLOCK)):
        # The squared distances without the length of the cell's own patch.
        products = lengths - 2 * patches[tuple(block.T)] @ known.T
        nearest = np.argpartition(products, number - 1, axis=1)[:, :number]
        order = np.argsort(np.take_along_axis(products, nearest, 1), axis=1)
        found.append(np.take_along_axis(nearest, order, 1))
    nearest = sources[np.concatenate(found)]
    return _distances(patches, cells, nearest), nearest


def _distances(patches: np.ndarray, cells: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Returns the distances of cells [Q, 2] and several sources of each, [Q, K, 2]: [Q, K]."""
    difference = patches[tuple(cells.T)][:, np.newaxis] - patches[tuple(sources.T)].swapaxes(0, 1)
    return np.mean(difference**2, axis=-1)


def _neighbours(cells: np.ndarray) -> np.ndarray:
    """Returns the numbers of the cells beside each cell of a grid, int [Q, 4]; -1: none."""
    numbers = np.full(cells.max(axis=0) + 3, -1)  # A border, so that every cell has neighbours.
    numbers[tuple(cells.T + 1)] = np.arange(len(cells))
    return numbers[tuple((cells[:, np.newaxis] + 1 + _NEIGHBOURS).T)].T


def _copy(
    residual: np.ndarray, cells: np.ndarray, sources: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Copies residuals [H, W, 3] from sources to cells, both int [Q, 2] in pixels [h, w]."""
    copied, total = np.zeros_like(residual), np.zeros((*residual.shape[:2], 1), np.float32)
    shifts = np.rint((sources - cells) * scale).astype(int)
    for cell, shift in zip(cells, shifts, strict=True):
        (rows, by_row), (columns, by_column) = map(_span, cell, scale, residual.shape)
        weight = by_row[:, None, None] * by_column[:, None]
        source = (_shifted(span, by) for span, by in zip((rows, columns), shift, strict=True))
        copied[rows, columns] += weight * residual[tuple(source)]
        total[rows, columns] += weight
    return copied / np.maximum(total, np.finfo(np.float32).eps)


def _span(start: int, scale: float, limit: int) -> tuple[slice, np.ndarray]:
    """Returns the pixels of the image that a cell covers along an axis, and their weights."""
    begin, end = start - OVERLAP, start + CELL + OVERLAP
    span = slice(max(round(scale * begin), 0), min(round(scale * end), limit))
    centers = (np.arange(span.start, span.stop) + 0.5) / scale
    depth = np.minimum(centers - begin, end - centers) / (2 * OVERLAP)
    return span, np.clip(depth, 0.0, 1.0).astype(np.float32)


def _shifted(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)
