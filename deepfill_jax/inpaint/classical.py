"""Classical inpainting methods: the baselines that a network has to beat.

`Classical` lets an `Inpainter` complete with one of them instead of a network.

Each function takes an image, uint8 [H, W, 3] RGB, and a mask, uint8 [H, W, 1] with non-zero in the
hole, and returns the completed image, uint8 [H, W, 3]. Known pixels are returned bit for bit. If
the hole covers the whole image, the result is mid-grey.

Each function imports its library itself, because inference does not need these libraries.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from deepfill_jax import weights
from deepfill_jax.convert import sources
from deepfill_jax.errors import UsageError
from deepfill_jax.image import composite, to_float, to_integers
from deepfill_jax.models import Prediction

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]

MID_GREY = 128
_RADIUS = 5  # Radius of the neighbourhood that OpenCV averages over, in pixels.
_PATCH_RADIUS = 3  # Radius of 7 x 7 patches, as in PatchMatch's own examples.


def _completes(fill: Fill) -> Fill:
    """Makes a baseline of a function that fills the hole, bool [H, W]: composites its result."""

    @functools.wraps(fill)
    def complete(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        hole = mask[..., 0] > 0
        if hole.all():
            return np.full_like(image, MID_GREY)
        if not hole.any():
            return image.copy()
        try:
            filled = fill(image, hole)
        except ImportError as error:
            raise UsageError(
                f"{fill.__name__} needs {error.name}: pip install 'deepfill_jax[train]'."
            ) from error
        return composite(filled, image, hole[..., np.newaxis])

    return complete


@_completes
def telea(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fills the hole by fast marching from its border; Telea (Journal of Graphics Tools, 2004)."""
    import cv2

    return cv2.inpaint(image, hole.astype(np.uint8), _RADIUS, cv2.INPAINT_TELEA)


@_completes
def navier_stokes(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Continues isophotes by Navier-Stokes fluid flow; Bertalmio et al. (CVPR 2001)."""
    import cv2

    return cv2.inpaint(image, hole.astype(np.uint8), _RADIUS, cv2.INPAINT_NS)


@_completes
def patchmatch(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Copies similar patches, from coarse to fine; Barnes et al. (SIGGRAPH 2009)."""
    from patchmatch import patch_match

    return patch_match.inpaint(image, hole.astype(np.uint8), patch_size=_PATCH_RADIUS)


@_completes
def biharmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Solves the biharmonic equation in the hole (a thin plate); takes seconds for a large hole."""
    from skimage import restoration

    filled = restoration.inpaint_biharmonic(image, hole, channel_axis=-1)  # 0..1
    return np.rint(255.0 * filled).astype(np.uint8)


@_completes
def mean(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fills the hole with the mean colour of the known pixels, the weakest baseline."""
    return np.rint(image[~hole].mean(axis=0)).astype(np.uint8)


BASELINES: dict[str, Fill] = {
    fill.__name__: fill for fill in (telea, navier_stokes, patchmatch, biharmonic, mean)
}


@dataclass(frozen=True)
class Classical:
    """A classical method in the place of a model.

    Attributes:
        name: A key of `BASELINES`.
        guided: It accepts no sketches.
        architecture: What takes the place of an architecture's name.
        metadata: What takes the place of the metadata of a model; any working size is large enough.
    """

    name: str
    guided: ClassVar[bool] = False
    architecture: ClassVar[str] = "classical"
    metadata: ClassVar[Mapping[str, Any]] = {
        "image_size": 1 << 20,  # No image is scaled down.
        "purpose": "scratches and small holes, without a network",
        "license": "no weights",
    }

    def __call__(
        self,
        height: int,
        width: int,
        image: np.ndarray,
        mask: np.ndarray,
        *,
        seamless: bool = False,
    ) -> Prediction[np.ndarray]:
        """Completes a batch like `Network`: float32 [B, h, w, 3] in [-1, 1], mask [B, h, w, 1].

        The method works with 8 bits. Images are not padded to `height` and `width`. `seamless` has
        no effect, because classical methods start from the colors at the border.
        """
        fill = BASELINES[self.name]
        pairs = zip(to_integers(image, np.uint8), mask, strict=True)
        filled = to_float(np.stack([fill(pixels, hole) for pixels, hole in pairs]))
        return Prediction(filled, filled, composite(filled, image, mask))

    def compile(self, batch: int, height: int, width: int, *, seamless: bool) -> None:
        """Does nothing: there is nothing to compile."""

    def is_compiled(self, batch: int, height: int, width: int, *, seamless: bool) -> bool:
        """Returns True: nothing is compiled."""
        return True


Method = weights.Model | Classical


def find_method(source: str | Path) -> tuple[Method, Sequence[Path]]:
    """Returns the classical method of this name or a model, and the files of the model.

    Args:
        source: A key of `BASELINES`, or see `convert.sources.read`.

    Raises:
        UsageError, RunError: See `convert.sources.read`.
    """
    if str(source) in BASELINES:
        return Classical(str(source)), ()
    read = sources.read(source)
    return read.model, read.files
