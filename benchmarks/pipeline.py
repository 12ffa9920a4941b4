"""Measures the input pipeline, compared with the data loaders of MMagic and nipponjo.

    python benchmarks/pipeline.py [--photos FOLDER] [--cores 1 2] [--rounds 5] [--seconds 3]
        [--python PYTHON [--mmagic] [--nipponjo CLONE]]

PYTHON is an interpreter with the packages that their loaders need: torch and torchvision of one
build, numpy<2, opencv-python, mmengine, mmcv-lite==2.1.0, click, requests, and, installed with
--no-deps, mmagic==1.2.0. CLONE is a clone of nipponjo/deepfillv2-pytorch.

Each loader runs in a separate process on the given number of cores, with one worker per core, and
the loaders are timed alternately. Ours runs with the settings of each peer: `configs/places.py` and
`configs/places.py:official`. Without --photos, the demo's photographs are read. The script prints a
line of JSON for each loader and number of cores: images per second (median, minimum and maximum of
the rounds) and the ratio to the smallest number of cores; for ours also the ratio to the peer, and
the milliseconds of CPU time per image of the main process, without its workers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BATCH = 16
FOLDER = Path(__file__).parent


class Loader:
    """A loader in a separate process; see `loaders/clock.py`."""

    def __init__(self, name, python, arguments):
        paths = [FOLDER]
        if python == sys.executable:  # The peers' loaders must not import our packages.
            paths += [FOLDER.parent, *filter(None, sys.path)]
        self._process = subprocess.Popen(
            [python, "-P", "-m", "loaders.clock", name, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rounds = []

    def measure(self):
        """Times one round."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit("A loader failed; see its error above.")
        self.rounds.append(json.loads(answer))

    def rates(self):
        """Returns the images per second of each round."""
        return [answer["rate"] for answer in self.rounds]

    def close(self):
        """Ends the process."""
        self._process.communicate()


def compare(sides, photos, options):
    """Times the loaders {name: (interpreter, argument)} alternately, and yields their results."""
    loaders = {
        (name, cores): Loader(name, python, (photos, cores, BATCH, options.seconds, *argument))
        for cores in options.cores
        for name, (python, *argument) in sides.items()
    }
    for _ in range(options.rounds):
        for loader in loaders.values():
            loader.measure()
    for (name, cores), loader in loaders.items():
        loader.close()
        rates = loader.rates()
        result = {
            "photos": str(photos),
            "loader": name,
            "cores": cores,
            "images_per_second": round(statistics.median(rates)),
            "spread": [round(min(rates)), round(max(rates))],
            "to_fewest_cores": ratio(rates, loaders[name, options.cores[0]].rates()),
        }
        if name == "ours":
            own = [answer["own_ms"] for answer in loader.rounds]
            result["settings"] = sides["ours"][1]
            result["own_ms_per_image"] = round(statistics.median(own), 3)
            for other in sides.keys() - {"ours"}:
                result[f"to_{other}"] = ratio(rates, loaders[other, cores].rates())
        yield result


def ratio(rates, others):
    """Returns the median of the ratios of each round."""
    return round(statistics.median(a / b for a, b in zip(rates, others, strict=True)), 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="duration of a round")
    parser.add_argument("--python", help="an interpreter with the packages of the peers' loaders")
    parser.add_argument("--mmagic", action="store_true")
    parser.add_argument("--nipponjo", help="a clone of nipponjo/deepfillv2-pytorch")
    options = parser.parse_args()
    if (options.mmagic or options.nipponjo) and not options.python:
        parser.error("--mmagic and --nipponjo need --python, an interpreter with their packages.")
    options.cores = sorted(set(options.cores))
    mmagic, official = ({"ours": (sys.executable, name)} for name in ("mmagic", "official"))
    if options.mmagic:
        mmagic["mmagic"] = (options.python,)
    if options.nipponjo:
        official["nipponjo"] = (options.python, options.nipponjo)
    with tempfile.TemporaryDirectory() as folder:
        if options.photos is None:
            from deepfill_jax.data import samples

            samples.write(folder)
            options.photos = Path(folder, "train")
        for sides in (mmagic, official):
            for result in compare(sides, options.photos, options):
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
