"""Scores models and classical fills on held-out photographs, and prints the tables.

    python benchmarks/quality.py --photos FOLDER [--methods mean,telea,faces] [--sets faces]
        [--masks irregular,box] [--number N] [--tables FILE]

FOLDER holds `faces/val` and `scenes/val`, pictures, and `masks`, mask files. A method is a
classical fill or a model, by its name or file. Every method meets the same crops, at 256 px, and
the same frozen holes:

    irregular  MMagic's, 15 to 65 % of the picture, of which the published tables are
    box        the paper's rectangles
    strokes    the paper's brush strokes
    files      a file of `masks` each

What is scored is kept in `results/quality`, a JSON file for each set, kind of masks and method. It
is not done again unless the model, the seed of masks or the number of pictures is another. Models
given by file are in the tables that are printed, but not kept. `--tables` writes all that is kept
to a document, docs/scores.md; without `--photos` nothing is scored.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import runpy
from pathlib import Path

import distances
import score_tables

from deepfill_jax import sharding, trained, weights
from deepfill_jax.errors import run_command
from deepfill_jax.evaluate import baselines, metrics, scoring
from deepfill_jax.evaluate.methods import baseline_complete, network_complete
from deepfill_jax.models import Generator
from deepfill_jax.train import build

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "quality"
PLACES = HERE.parent / "configs" / "places.py"
SIZE = 256  # Pixels of a side.
CROPS = {"faces": 178, "scenes": 384}  # Pixels of a side, of the set's pictures.
MASKS = {"irregular": "irregular", "box": "box", "strokes": "strokes", "files": "folder"}


def make_config(photos, pictures, masks, number):
    """The config of one set and kind of masks: MMagic's protocol but for these."""
    config = runpy.run_path(str(PLACES))["get_config"]()
    config.image_size = SIZE
    config.data.val_source = f"folder:{photos / pictures / 'val'}"
    config.data.crop_size = CROPS[pictures]
    config.eval.num_examples = number
    config.masks.folder = str(photos / "masks")
    for kind in config.masks.weights:
        config.masks.weights[kind] = float(kind == MASKS[masks])
    return config


def conditions(method, config, number):
    """What a result depends on, but for the photographs."""
    version = None
    if method not in baselines.BASELINES:
        version = hashlib.sha256(trained.find(method).read_bytes()).hexdigest()[:16]
    return {"model": version, "seed": config.eval.seed, "asked": number}


def measure(completed, image, mask):
    """All that is measured of a batch, see metrics.py and distances.py."""
    return metrics.measure(completed, image, mask) | distances.load()(completed, image)


def report(method, config, measure=metrics.measure):
    """What a method's pictures of a config's validation set are measured as."""
    mesh = sharding.make_mesh()
    if method in baselines.BASELINES:
        complete = baseline_complete(method)
    else:
        model = weights.load(method)
        complete = network_complete(Generator(model.variant), model.generator, mesh)
    return scoring.evaluate(complete, build.validation_batches(config)(), measure=measure)


def score(method, config):
    """The summary of all that is measured of a method, and that by the area of holes."""
    found = report(method, config, measure)
    values = dict(found.values)
    features = values.pop("features")
    found = dataclasses.replace(found, values=values)
    frechet = {"frechet": {"mean": distances.frechet(features), "count": len(features)}}
    return {"summary": found.summary() | frechet, "by_area": found.by_area()}


def update(options):
    """Scores what is not kept yet; returns what is not for keeping, as `kept` does."""
    others = {}
    for case in itertools.product(options.sets, options.masks, options.methods):
        pictures, masks, method = case
        config = make_config(options.photos, pictures, masks, options.number)
        asked = conditions(method, config, options.number)
        path = RESULTS / f"{'-'.join(case)}.json"
        is_kept = method in baselines.BASELINES or method in trained.names()
        if is_kept and path.is_file() and _is_current(json.loads(path.read_text()), asked):
            continue
        result = {"conditions": asked} | score(method, config)
        if is_kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n")
        else:
            others[case] = result
        print(f"{', '.join(case)}: {result['summary']['l1_hole']['mean']:.3f}", flush=True)
    return others


def _is_current(result, asked):
    return result["conditions"] == asked and score_tables.METRICS.keys() <= result["summary"].keys()


def kept():
    """What is kept, by set, kind of masks and method."""
    return {tuple(p.stem.split("-")): json.loads(p.read_text()) for p in RESULTS.glob("*.json")}


def tables(results, sets=CROPS, masks=MASKS):
    """Yields lines of Markdown: a section for each set and kind of masks that has results."""
    for section in itertools.product(sets, masks):
        found = {method: result for (*of, method), result in results.items() if (*of,) == section}
        if found:
            yield from score_tables.section(*section, found)


def page():
    """The document of all that is kept."""
    crops = " and ".join(f"{side} px ({pictures})" for pictures, side in CROPS.items())
    head = score_tables.HEAD.format(crops=crops, size=SIZE)
    return "\n".join([head, *tables(kept())])


def _names(known):
    def parse(text):
        names = text.split(",")
        if known and (unknown := set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return names

    return parse


def main(arguments=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--methods", type=_names(None), default=["mean", "telea", "navier_stokes"])
    parser.add_argument("--sets", type=_names(CROPS), default=list(CROPS))
    parser.add_argument("--masks", type=_names(MASKS), default=list(MASKS))
    parser.add_argument("--number", type=int, default=0, help="of pictures; 0 for all")
    parser.add_argument("--tables", type=Path, help="document of all that is kept")
    options = parser.parse_args(arguments)

    def command():
        others = update(options) if options.photos else {}
        if options.tables:
            options.tables.write_text(page())
        print(*tables(kept() | others, options.sets, options.masks), sep="\n")

    run_command(command)


if __name__ == "__main__":
    main()
