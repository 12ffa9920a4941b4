"""Uploads a photograph and paints its mask in a notebook on Google Colab."""

import base64
import importlib.util
import io
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from deepfill_jax import pictures
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures.preview import HOLE, OPACITY, preview

_PAGE = Path(__file__).with_name("paint.html")


def is_colab() -> bool:
    """Whether this is a notebook on Google Colab."""
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:  # The parent package `google` is missing too.
        return False


def upload() -> tuple[Path, Path | None]:
    """Asks for a photograph and, optionally, its mask.

    Returns:
        The paths of the photograph and of the mask; None if a single file was uploaded. Of two
        files, the mask is the one with "mask" in its name, otherwise the second.

    Raises:
        UsageError: Not one or two files were uploaded.
    """
    from google.colab import files

    paths = [Path(name) for name in files.upload()]
    if len(paths) == 1:
        return paths[0], None
    if len(paths) != 2:
        raise UsageError(
            f"{len(paths)} files were uploaded; upload a photograph, or a photograph and its mask."
        )
    photo, mask = sorted(paths, key=lambda path: "mask" in path.stem.lower())
    return photo, mask


def paint(photo: pictures.Source) -> np.ndarray:
    """Shows a photograph in the notebook, and waits until its hole is painted.

    Args:
        photo: An image file, see `pictures.read`.

    Returns:
        The mask, bool [H, W, 1], for the upright photograph.

    Raises:
        UsageError: The file cannot be read, or nothing was painted.
    """
    from google.colab import output
    from IPython.display import HTML, display

    picture = pictures.read(photo)
    shown = io.BytesIO()
    preview(picture).save(shown, "JPEG", quality=90)
    page = Template(_PAGE.read_text()).substitute(
        photo=base64.b64encode(shown.getvalue()).decode(), colour=f"rgb{HOLE}", opacity=OPACITY
    )
    show: Any = display  # IPython does not annotate it.
    show(HTML(page))
    layer = base64.b64decode(output.eval_js("deepfillPainted").partition(",")[2])
    alpha = pictures.read(layer).alpha
    if alpha is None or not alpha.any():
        raise UsageError("Nothing was painted; run the cell again, and paint the object to remove.")
    return pictures.resize_mask(alpha > 0, *picture.pixels.shape[:2])
