"""Detail for completions that were computed at a smaller scale, copied from the known pixels.

A window that is scaled down by a factor f is completed without structures smaller than f pixels.
These are the residual: the difference between the image and its smooth, enlarged version. It is
copied from the known place whose smooth version is most similar, as in contextual residual
aggregation (Yi et al., CVPR 2020, section 3.2, https://arxiv.org/abs/2005.09704). There, each place
gets the average of all residuals, weighted by attention. Here it gets the residual of one source,
which stays sharp:

    smooth    the completed window, slightly blurred
    match     for each cell of 4x4 pixels in the hole: the sources in the most similar places
    agree     among these, adjacent cells take adjacent sources where that costs little
    copy      the residuals of the sources, blended where cells meet

Lengths are in pixels of the completed window, positions in units of `STRIDE` pixels. Letters in
shapes: H and W the sides of the image's window, h and w those of the completed window, I and J the
positions in h and w, Q cells, D length of a patch.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # Loads scipy.ndimage when it is first used.
from jax import lax

from deepfill_jax.inpaint.boxes import pooled
from deepfill_jax.inpaint.network import compiled_side
from deepfill_jax.inpaint.resize import resize

BLUR = 1.0  # Standard deviation. Finer structures are copied, coarser ones are the network's.
CELL = 4  # Side of a cell.
STRIDE = 2  # Distance of adjacent positions of sources.
MARGIN = 4  # Width of the surroundings that are compared with a cell.
KNOWN = 2  # Width of the part of the surroundings that must be known in a source.
OVERLAP = 1.0  # Width of the border in which cells are blended, on each side.
NEAREST = 8  # Sources considered for each cell, beside those next to its neighbours' sources.
AGREEMENT = 1.0  # Value of a neighbour that agrees, relative to the median distance of matches.
ROUNDS = 12  # Number of rounds in which sources are chosen; each changes every second cell.
BLOCK = 256  # Cells that are compared with all sources at once.

_NEIGHBOURS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)], np.int32)
_STEP = CELL // STRIDE  # Positions from one cell to the next.


def add_detail(image: np.ndarray, hole: np.ndarray, completed: np.ndarray) -> np.ndarray:
    """Enlarges a completion and adds detail in the hole.

    Args:
        image: Float32 [H, W, 3] in [-1, 1]; its pixels in the hole have no influence.
        hole: bool [H, W, 1].
        completed: Float32 [h, w, 3] in [-1, 1], the completion of the image scaled to this size.

    Returns:
        Float32 [H, W, 3] in [-1, 1]; without detail if nothing is known that it could be copied
        from. Only its pixels in the hole are meaningful.
    """
    height, width = image.shape[:2]
    h, w = completed.shape[:2]
    # The blur mixes one pixel of the hole into its border.
    unknown = scipy.ndimage.maximum_filter(resize(hole.astype(np.float32), h, w)[..., 0] > 0, 3)
    # A program is compiled for each shape, so images are padded to squares, and the number of cells
    # to a power of two. The longer side is the working size, so there are only a few programs.
    side = compiled_side(max(h, w))
    margins = (0, side - h), (0, side - w)
    available = available_sources(np.pad(unknown, margins, constant_values=True))
    if not available.any():
        return np.clip(resize(completed, height, width), -1.0, 1.0)
    cells = (
        np.argwhere(pooled(unknown[..., np.newaxis], CELL, whole=False)).astype(np.int32) * _STEP
    )
    smooth = scipy.ndimage.gaussian_filter(completed, (BLUR, BLUR, 0.0))
    padded = np.pad(smooth, (*margins, (0, 0)), mode="edge")
    repeated = np.resize(cells, (BLOCK << max((len(cells) - 1) // BLOCK, 0).bit_length(), 2))
    sources = np.asarray(choose_sources(padded, available, repeated))[: len(cells)]
    enlarged = resize(smooth, height, width)
    scale = np.array([height / h, width / w])
    copied = _copy(image - enlarged, cells * STRIDE, sources * STRIDE, scale)
    return np.clip(enlarged + copied, -1.0, 1.0)


def available_sources(unknown: np.ndarray) -> np.ndarray:
    """Returns where a cell with known surroundings begins, bool [I, J], for a mask bool [h, w]."""
    available = np.zeros([side // STRIDE for side in unknown.shape], bool)
    side, first = CELL + 2 * KNOWN, KNOWN // STRIDE
    if min(unknown.shape) >= side:
        windows = np.lib.stride_tricks.sliding_window_view(~unknown, (side, side))
        known = np.all(windows[::STRIDE, ::STRIDE], axis=(2, 3))
        rows, columns = known.shape
        available[first : first + rows, first : first + columns] = known
    return available


@jax.jit
def choose_sources(smooth: jax.Array, available: jax.Array, cells: jax.Array) -> jax.Array:
    """Chooses a source for each cell.

    Args:
        smooth: Float32 [h, w, 3]; h and w are multiples of `CELL`.
        available: bool [I, J], the positions of sources; at least one.
        cells: int32 [Q, 2], the positions of the cells; they may repeat.

    Returns:
        int32 [Q, 2], the positions of the sources.
    """
    patches = _patches(smooth)
    distances, nearest = lax.map(
        functools.partial(_nearest, patches, available), cells, batch_size=BLOCK
    )
    unit = AGREEMENT * jnp.median(distances[:, 0])
    shape = available.shape[0] // _STEP, available.shape[1] // _STEP
    at = tuple(cells.T // _STEP)
    is_cell = jnp.zeros(shape, bool).at[at].set(True)
    chosen = jnp.zeros((*shape, 2), jnp.int32).at[at].set(nearest[:, 0])

    def improve(number: jax.Array, chosen: jax.Array) -> jax.Array:
        beside = cells[:, None] // _STEP + _NEIGHBOURS  # [Q, 4, 2]
        has = _lookup(is_cell, beside, False)
        continued = _lookup(chosen, beside, 0) - _STEP * _NEIGHBOURS
        has &= _lookup(available, continued, False)
        candidates = jnp.concatenate([nearest, chosen[at][:, None], continued], axis=1)
        own = jnp.concatenate([jnp.ones((len(cells), NEAREST + 1), bool), has], axis=1)
        distance = jnp.concatenate(
            [distances, _distance(patches, cells, candidates[:, NEAREST:])], axis=1
        )
        agreeing = (candidates[:, :, None] == continued[:, None]).all(-1) & has[:, None]
        cost = jnp.where(own, distance - unit * agreeing.sum(-1), jnp.inf)
        best = jnp.take_along_axis(candidates, cost.argmin(1)[:, None, None], 1)[:, 0]
        is_turn = (cells.sum(1) // _STEP + number) % 2 == 0
        return chosen.at[at].set(jnp.where(is_turn[:, None], best, chosen[at]))

    return lax.fori_loop(0, ROUNDS, improve, chosen)[at]


def _patches(smooth: jax.Array) -> jax.Array:
    """Returns the cell at each position of [h, w, 3] with its surroundings: [I, J, D]."""
    padded = jnp.pad(smooth, ((MARGIN, STRIDE + MARGIN), (MARGIN, STRIDE + MARGIN), (0, 0)), "edge")
    rows, columns = (
        np.arange(0, side, STRIDE)[:, None] + np.arange(CELL + 2 * MARGIN)
        for side in smooth.shape[:2]
    )
    patches = padded[rows[:, None, :, None], columns[None, :, None, :]]
    return patches.reshape(*patches.shape[:2], -1)


def _nearest(
    patches: jax.Array, available: jax.Array, cell: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns distances, float32 [NEAREST], and positions, int32 [NEAREST, 2], nearest first."""
    patch = patches[cell[0], cell[1]]
    squared = jnp.sum(patches**2, -1) - 2 * patches @ patch + jnp.sum(patch**2)  # [I, J]
    distance = jnp.where(available, squared, jnp.inf) / patch.size
    nearest, index = lax.top_k(-distance.ravel(), NEAREST)
    return -nearest, jnp.stack(jnp.unravel_index(index, available.shape), -1)


def _distance(patches: jax.Array, cells: jax.Array, sources: jax.Array) -> jax.Array:
    """Returns the distances of cells [Q, 2] and several sources of each [Q, N, 2]: [Q, N]."""
    difference = patches[tuple(cells.T)][:, None] - _lookup(patches, sources, 0.0)
    return jnp.mean(difference**2, axis=-1)


def _lookup(grid: jax.Array, positions: jax.Array, outside: float) -> jax.Array:
    """Returns the values of a grid [I, J, ...] at positions [..., 2], which may lie outside."""
    # Negative indices would count from the end.
    positions = jnp.where((positions < 0).any(-1, keepdims=True), max(grid.shape[:2]), positions)
    return grid.at[positions[..., 0], positions[..., 1]].get(mode="fill", fill_value=outside)


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
