"""Evaluates models and classical baselines on held-out photographs, and prints tables.

    python benchmarks/quality.py --photos FOLDER [--methods mean,telea,faces] [--sets faces]
        [--masks irregular,box] [--number N] [--tables FILE]

FOLDER holds the images `faces/val` and `scenes/val`, and the mask files `masks`. A method is a
classical baseline or a model, given by name or file. Every method gets the same 256 px crops and
the same fixed masks; a model completes them as `deepfill inpaint` does:

    irregular  MMagic's masks, 15 to 65 % of the image, as in the published tables
    box        the paper's rectangles
    strokes    the paper's brush strokes
    files      one file of `masks` per image

Results are stored in `results/quality`, in one JSON file per data set, kind of masks and method.
They are reused unless the model, the seed of the masks or the number of images changes. Results of
models given by file are printed, but not stored. `--tables` writes all stored results to a
document, docs/scores.md. Without `--photos`, nothing is evaluated.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import runpy
from pathlib import Path

import distances
import numpy as np
import score_tables

from deepfill_jax import Inpainter, trained
from deepfill_jax.errors import run_command
from deepfill_jax.evaluate import evaluate, methods, metrics
from deepfill_jax.inpaint import classical

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "quality"
PLACES = HERE.parent / "configs" / "places.py"
SIZE = 256  # Image side in pixels.
EDITION = 4  # Of the completion by `Inpainter`; to be increased when its results change.
CROPS = {"faces": 178, "scenes": 384}  # Side of the crops of each data set, in pixels.
MASKS = {"irregular": "irregular", "box": "box", "strokes": "strokes", "files": "folder"}


def make_config(photos, pictures, masks, number):
    """Returns the config of a data set and a kind of masks, based on MMagic's protocol."""
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
    """Returns the conditions on which a result depends, apart from the photographs."""
    version = None
    if method not in classical.BASELINES:
        version = hashlib.sha256(trained.find(method).read_bytes()).hexdigest()[:16]
    conditions = {"model": version, "seed": config.eval.seed, "asked": number}
    # Earlier versions evaluated the first images instead.
    conditions |= {"selection": "evenly spaced"} if number else {}
    return conditions | ({"edition": EDITION} if version else {})


def measure(completed, image, mask):
    """Measures all metrics of a batch, see metrics.py and distances.py."""
    return metrics.measure(completed, image, mask) | distances.load()(completed, image)


def report(method, config, measure=metrics.measure):
    """Evaluates a method on a config's validation set."""
    if method not in classical.BASELINES:
        inpainter = Inpainter.load(method)
        method = methods.Method(method, lambda batch: {"completed": complete(inpainter, batch)})
    return evaluate(config, method, measure=measure)


def complete(inpainter, batch):
    """Completes a batch of the data pipeline; padding, whose mask is empty, stays as it is."""
    pairs = zip(batch["image"], batch["mask"], strict=True)
    return np.stack([inpainter(image, mask, check_mask=False) for image, mask in pairs])


def score(method, config):
    """Returns the mean metrics of a method, and the means by the area of the hole."""
    found = report(method, config, measure)
    values = dict(found.values)
    features = values.pop("features")
    found = dataclasses.replace(found, values=values)
    frechet = {"frechet": {"mean": distances.frechet(features), "count": len(features)}}
    return {"summary": found.summary() | frechet, "by_area": found.by_area()}


def update(options):
    """Evaluates cases without a stored result; returns results that are not stored, as `kept`."""
    others = {}
    for case in itertools.product(options.sets, options.masks, options.methods):
        pictures, masks, method = case
        config = make_config(options.photos, pictures, masks, options.number)
        expected = conditions(method, config, options.number)
        path = RESULTS / f"{'-'.join(case)}.json"
        is_kept = method in classical.BASELINES or method in trained.names()
        if is_kept and path.is_file() and _is_current(json.loads(path.read_text()), expected):
            continue
        result = {"conditions": expected} | score(method, config)
        if is_kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n")
        else:
            others[case] = result
        print(f"{', '.join(case)}: {result['summary']['l1_hole']['mean']:.3f}", flush=True)
    return others


def _is_current(result, expected):
    has_all_metrics = score_tables.METRICS.keys() <= result["summary"].keys()
    return result["conditions"] == expected and has_all_metrics


def kept():
    """Returns the stored results by data set, kind of masks and method."""
    return {tuple(p.stem.split("-")): json.loads(p.read_text()) for p in RESULTS.glob("*.json")}


def tables(results, sets=CROPS, masks=MASKS):
    """Yields Markdown lines: a section for each data set and kind of masks that has results."""
    for section in itertools.product(sets, masks):
        methods = {
            method: result for (*key, method), result in results.items() if (*key,) == section
        }
        if methods:
            yield from score_tables.section(*section, methods)


def page():
    """Returns the document with all stored results."""
    crops = " and ".join(f"{side} px ({pictures})" for pictures, side in CROPS.items())
    header = score_tables.HEADER.format(crops=crops, size=SIZE)
    return "\n".join([header, *tables(kept())])


def _names(known):
    def parse(text):
        names = text.split(",")
        if known and (unknown := set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return names

    return parse


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--methods", type=_names(None), default=["mean", "telea", "navier_stokes"])
    parser.add_argument("--sets", type=_names(CROPS), default=list(CROPS))
    parser.add_argument("--masks", type=_names(MASKS), default=list(MASKS))
    parser.add_argument("--number", type=int, default=0, help="number of images; 0 takes all")
    parser.add_argument("--tables", type=Path, help="document to write all stored results to")
    options = parser.parse_args(arguments)

    def command():
        others = update(options) if options.photos else {}
        if options.tables:
            options.tables.write_text(page())
        print(*tables(kept() | others, options.sets, options.masks), sep="\n")

    run_command(command)


if __name__ == "__main__":
    main()
