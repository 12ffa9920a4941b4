"""Measures how long opening a folder of many images takes, at the first start and at the second.

    python benchmarks/starts.py [--files 200000] [--folder /dev/shm]

The files are hard links to a few JPEG files of 64 px, in folders of 1,000. Each start is a process
of its own. The script prints a line of JSON for each: seconds, megabytes read, and the peak memory
that opening the folder adds, in megabytes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, FOLDER_FILES, SIZE = 16, 1000, 64


def make_files(folder, count):
    """Writes `count` image files below a folder."""
    rng = np.random.default_rng(0)
    originals = [folder / f"{i}.jpg" for i in range(min(count, IMAGES))]
    for path in originals:
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path, quality=90)
    for i in range(len(originals), count):
        path = folder / f"{i // FOLDER_FILES:05d}" / f"{i:07d}.jpg"
        path.parent.mkdir(exist_ok=True)
        os.link(originals[i % IMAGES], path)


def measure(folder):
    """Opens the folder in this process, and prints the result."""
    from deepfill_jax.data import sources

    read, memory, start = _bytes_read(), _peak_megabytes(), time.perf_counter()
    source = sources.open_source(f"folder:{folder}")
    seconds = time.perf_counter() - start
    result = {
        "files": len(source),
        "seconds": round(seconds, 2),
        "megabytes_read": round((_bytes_read() - read) / 1e6, 3),
        "megabytes_of_memory": round(_peak_megabytes() - memory),
    }
    print(json.dumps(result))


def _bytes_read():
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def _peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main():
    """Runs the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="where to write the files")
    parser.add_argument("--measured", help=argparse.SUPPRESS)  # The process of one start.
    options = parser.parse_args()
    if options.measured:
        measure(options.measured)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        photos, cache = Path(folder, "photos"), Path(folder, "cache")
        photos.mkdir()
        make_files(photos, options.files)
        paths = [*filter(None, sys.path[1:]), str(Path(__file__).parents[1])]
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(paths),
            "XDG_CACHE_HOME": str(cache),
        }
        command = [sys.executable, __file__, "--measured", str(photos)]
        for start in ("first", "second"):
            ran = subprocess.run(
                command, env=os.environ | environment, check=True, stdout=subprocess.PIPE
            )
            print(json.dumps({"start": start, **json.loads(ran.stdout)}), flush=True)


if __name__ == "__main__":
    main()
