"""Classical fills: what a network has to beat.

Each takes a picture, uint8 [H, W, 3] RGB, and a mask, uint8 [H, W, 1] with non-zero in the hole,
and returns the completed picture, uint8 [H, W, 3]. Known pixels are returned bit for bit. With
nothing known there is nothing to go by: a picture that is all hole becomes mid grey.

The libraries are imported where they are used: inference does without them.
"""

import functools
from collections.abc import Callable

import numpy as np

from deepfill_jax.image import composite

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]

MID_GREY = 128
_RADIUS = 5  # Of the neighbourhood that OpenCV averages over, in pixels.
_PATCH_RADIUS = 3  # 7 x 7 patches, as in PatchMatch's own examples.


def _completes(fill: Fill) -> Fill:
    """Makes a completed picture of what `fill` puts into the hole, bool [H, W]."""

    @functools.wraps(fill)
    def complete(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        hole = mask[..., 0] > 0
        if hole.all():
            return np.full_like(image, MID_GREY)
        if not hole.any():
            return image.copy()
        return np.asarray(composite(fill(image, hole), image, hole[..., np.newaxis]))

    return complete


@_completes
def telea(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fast marching from the border inwards; Telea (Journal of Graphics Tools, 2004)."""
    import cv2

    return cv2.inpaint(image, hole.astype(np.uint8), _RADIUS, cv2.INPAINT_TELEA)


@_completes
def navier_stokes(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Continues isophotes as a fluid flows; Bertalmio et al. (CVPR 2001)."""
    import cv2

    return cv2.inpaint(image, hole.astype(np.uint8), _RADIUS, cv2.INPAINT_NS)


@_completes
def patchmatch(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Pastes similar patches from coarse to fine; Barnes et al. (SIGGRAPH 2009)."""
    from patchmatch import patch_match

    return patch_match.inpaint(image, hole.astype(np.uint8), patch_size=_PATCH_RADIUS)


@_completes
def biharmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Bends a thin plate over the hole, the smoothest fill; seconds for a large hole."""
    from skimage import restoration

    filled = restoration.inpaint_biharmonic(image, hole, channel_axis=-1)  # 0..1
    return np.rint(255.0 * filled).astype(np.uint8)


@_completes
def mean(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The mean colour of the known pixels: the floor below which nothing was learned."""
    return np.rint(image[~hole].mean(axis=0)).astype(np.uint8)


BASELINES: dict[str, Fill] = {
    fill.__name__: fill for fill in (telea, navier_stokes, patchmatch, biharmonic, mean)
}
