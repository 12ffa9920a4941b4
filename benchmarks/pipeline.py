"""Times the input pipeline, beside the loaders of MMagic and nipponjo on the same photographs.

    python benchmarks/pipeline.py [--photos FOLDER] [--cores 1 2] [--rounds 5] [--seconds 3]
        [--python PYTHON [--mmagic] [--nipponjo CLONE]]

PYTHON is an interpreter that has what they need: torch and torchvision of one build, numpy<2,
opencv-python, mmengine, mmcv-lite==2.1.0, click, requests, and, installed with --no-deps,
mmagic==1.2.0. CLONE is a folder of nipponjo/deepfillv2-pytorch.

Each loader is a process of its own, on the first so many cores, with a worker for each; they are
timed in turn. Ours runs with the settings of either: `configs/places.py`, and its `official`.
Without --photos, the demo's photographs are read. Prints a line of JSON for each loader and number
of cores: images a second (median, lowest and highest round) and the ratio to those of the fewest
cores; for ours also the ratio to theirs, and the milliseconds of CPU that the program itself takes
an image, its workers apart.
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
    """A loader in a process of its own; see `loaders/clock.py`."""

    def __init__(self, name, python, arguments):
        paths = [FOLDER]
        if python == sys.executable:  # Theirs import nothing of ours.
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
            sys.exit("A loader has ended; its own message is above.")
        self.rounds.append(json.loads(answer))

    def rates(self):
        """Images a second of each round."""
        return [answer["rate"] for answer in self.rounds]

    def close(self):
        """Ends the process."""
        self._process.communicate()


def compare(sides, photos, options):
    """Times the sides in turn, {name: (interpreter, argument)}, and yields a result for each."""
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
    """Of each round's pair, then the median."""
    return round(statistics.median(a / b for a, b in zip(rates, others, strict=True)), 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of a round of a loader")
    parser.add_argument("--python", help="an interpreter that has what their loaders need")
    parser.add_argument("--mmagic", action="store_true")
    parser.add_argument("--nipponjo", help="a folder of nipponjo/deepfillv2-pytorch")
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
