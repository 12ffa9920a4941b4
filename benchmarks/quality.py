"""Scores models and classical fills on held-out photographs, and prints the tables.

    python benchmarks/quality.py --photos FOLDER [--methods mean,telea,faces] [--sets faces]
        [--masks irregular,box] [--number N]

FOLDER holds `faces/val` and `scenes/val`, pictures, and `masks`, mask files. A method is a
classical fill or a model, by its name or file. Every method meets the same crops, at 256 px, and
the same frozen holes:

    irregular  MMagic's, 15 to 65 % of the picture, of which the published tables are
    box        the paper's rectangles
    strokes    the paper's brush strokes
    files      a file of `masks` each

What is scored is kept in `results/quality`, a JSON file for each set, kind of masks and method. It
is not done again unless the model, the seed of masks or the number of pictures is another. Tables
are made of all that is kept.
"""

import argparse
import hashlib
import json
import runpy
from pathlib import Path

from deepfill_jax import (
    assemble,
    baselines,
    completion,
    evaluate,
    sharding,
    weights,
)
from deepfill_jax.models import Generator

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "quality"
PLACES = HERE.parent / "configs" / "places.py"
SIZE = 256  # Pixels of a side.
CROPS = {"faces": 178, "scenes": 384}  # Pixels of a side, of the set's pictures.
MASKS = {"irregular": "irregular", "box": "box", "strokes": "strokes", "files": "folder"}
METRICS = {"l1_hole": "hole L1", "psnr": "PSNR", "ssim": "SSIM", "psnr_hole": "hole PSNR"}
LOWER_IS_BETTER = {"l1_hole"}


def make_config(photos, pictures, masks, number):
    """The config of one set and kind of masks: MMagic's protocol but for these."""
    config = runpy.run_path(str(PLACES))["get_config"]()
    config.image_size = SIZE
    config.data.val_source = f"folder:{photos / pictures / 'val'}"
    config.data.crop_size = CROPS[pictures]
    config.eval.num_examples = number
    config.masks.folder = str(photos / "masks")
    for kind in config.masks.kinds:
        config.masks.kinds[kind] = float(kind == MASKS[masks])
    return config


def conditions(method, config, number):
    """What a result depends on, but for the photographs."""
    version = None
    if method not in baselines.BASELINES:
        version = hashlib.sha256(weights.find(method).read_bytes()).hexdigest()[:16]
    return {"model": version, "seed": config.eval.seed, "asked": number}


def score(method, config):
    """Scores a method on a config's validation set."""
    mesh = sharding.make_mesh()
    if method in baselines.BASELINES:
        complete = completion.baseline_complete(method)
    else:
        model = weights.load(method)
        complete = completion.network_complete(Generator(model.variant), model.generator, mesh)
    return evaluate.evaluate(complete, assemble.validation_batches(config)())


def update(options):
    """Scores what is not kept yet."""
    for pictures in options.sets:
        for masks in options.masks:
            config = make_config(options.photos, pictures, masks, options.number)
            for method in options.methods:
                path = RESULTS / f"{pictures}-{masks}-{Path(method).stem}.json"
                asked = conditions(method, config, options.number)
                if path.is_file() and json.loads(path.read_text())["conditions"] == asked:
                    continue
                report = score(method, config)
                kept = {
                    "conditions": asked,
                    "summary": report.summary(),
                    "by_area": report.by_area(),
                }
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(kept, indent=1) + "\n")
                print(f"{path.stem}: {report.summary()['l1_hole']['mean']:.3f}", flush=True)


def tables():
    """Yields Markdown: a table of means with standard errors, and one by area, for each set."""
    kept = {tuple(p.stem.split("-")): json.loads(p.read_text()) for p in RESULTS.glob("*.json")}
    for pictures in CROPS:
        for masks in MASKS:
            found = {m: r for (p, k, m), r in sorted(kept.items()) if (p, k) == (pictures, masks)}
            if found:
                yield from _table(pictures, masks, found)


def _table(pictures, masks, found):
    counts = sorted({r["summary"]["hole_area"]["count"] for r in found.values()})
    yield f"### {pictures}, {masks} masks, {' or '.join(map(str, counts))} pictures\n"
    areas = sorted({row["area"] for r in found.values() for row in r["by_area"]})
    yield _row("method", *METRICS.values(), *(f"hole L1, {area} %" for area in areas))
    yield "|---" * (1 + len(METRICS) + len(areas)) + "|"
    columns = [_best({m: r["summary"][name] for m, r in found.items()}, name) for name in METRICS]
    for area in areas:
        means = {
            m: {"mean": next(row["l1_hole"] for row in r["by_area"] if row["area"] == area)}
            for m, r in found.items()
            if any(row["area"] == area for row in r["by_area"])
        }
        columns.append(_best(means, "l1_hole"))
    for method in sorted(found, key=lambda m: found[m]["summary"]["l1_hole"]["mean"]):
        yield _row(method, *(column.get(method, "") for column in columns))
    yield ""


def _best(figures, name):
    """Figures as text, with their standard errors, the best in bold."""
    choose = min if name in LOWER_IS_BETTER else max
    best = choose(figures, key=lambda method: figures[method]["mean"])
    digits = 4 if name == "ssim" else 2
    shown = {}
    for method, figure in figures.items():
        mean = f"{figure['mean']:.{digits}f}"
        error = f" ± {figure['standard_error']:.{digits}f}" if "standard_error" in figure else ""
        shown[method] = f"**{mean}**{error}" if method == best else mean + error
    return shown


def _row(*cells):
    return f"| {' | '.join(cells)} |"


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
    parser.add_argument("--masks", type=_names(MASKS), default=["irregular"])
    parser.add_argument("--number", type=int, default=0, help="of pictures; 0 for all")
    options = parser.parse_args(arguments)
    if options.photos:
        update(options)
    print(*tables(), sep="\n")


if __name__ == "__main__":
    main()
