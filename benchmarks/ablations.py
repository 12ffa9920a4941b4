"""Ablations of configs/best.py and sharp.py: runs of equal time with one choice changed in each.

    python benchmarks/ablations.py --photos FOLDER --workdir RUNS [--rows ROW ...] [--seeds 0 1]
        [--seconds 180] [--tables FILE]

FOLDER holds `train` and `val`. A row is a recipe: "published" is the recipe of the paper's authors,
"base" is configs/best.py before its choices were measured, and "best" is configs/best.py with the
choices that scored best. Every other row is "base" or "best" with one change, except the "tuned"
rows: they train a finished run of "best" for as long again, with the losses of configs/sharp.py or
some of them. Every row trains at 64 px for as many steps as it completes in `--seconds` on this
machine when idle: a wider network or a larger batch gets fewer steps. The time of a step is
measured first, for each network, batch size and loss, and stored, so that runs may share the
machine with other work. Scores are means over the seeds and 200 images of `val`, with MMagic's
irregular masks.

Results are stored in `results/ablations`, and stored rows are not trained again. RUNS receives the
workdirs of the runs, which resume after an interruption. When a recipe changes, delete its row in
both folders; otherwise the old result is reused. The script prints a table of all stored results;
`--tables` also writes it to a document, docs/ablations.md. Without `--photos`, nothing is trained.
"""

import argparse
import json
import runpy
import statistics
import time
from pathlib import Path

import ablation_table
import distances
import jax
from absl import logging

from deepfill_jax import compile_cache, sharding
from deepfill_jax.data import streams
from deepfill_jax.evaluate import evaluate, metrics
from deepfill_jax.train import build, loop

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "ablations"
CONFIGS = HERE.parent / "configs"
PICTURES = 200
# Values of the recipe "base" that differ from configs/best.py, by config key.
BASE = {
    "batch_size": 16,
    "loss.l1_whole": 0.0,
    "loss.l1_hole": 1.0,
    "loss.l1_known": 0.2,
    "optimizer.learning_rate": 1e-3,
}
# The changes of each row from "base".
ROWS = {
    "base": {},
    "full width": {"model.width": 24},
    "published init": {"model.init": "published"},
    "with a discriminator": {"loss.adversarial": 0.1},
    "L1 of the whole, not of the hole": {
        "loss.l1_whole": 1.0,
        "loss.l1_hole": 0.0,
        "loss.l1_known": 0.0,
    },
    "known pixels count as the hole": {"loss.l1_known": 1.0},
    "known pixels do not count": {"loss.l1_known": 0.0},
    "no average of parameters": {"ema_decay": 0.0},
    "constant rate": {"optimizer.decay_steps": 0},
    "no warm-up": {"optimizer.warmup_steps": 0},
    "half the rate": {"optimizer.learning_rate": 5e-4},
    "twice the rate": {"optimizer.learning_rate": 2e-3},
    "no clipping": {"optimizer.clip_norm": 0.0},
    "batch 8": {"batch_size": 8},
    "batch 32": {"batch_size": 32},
    "no flips": {"data.flip": False},
    "large holes alone": {"masks.weights.irregular": 1.0, "masks.weights.box_and_strokes": 0.0},
}
# The changes of each row from "best". Twice the width has half the learning rate, because Adam's
# best rate decreases with the width (Yang et al. 2021, https://arxiv.org/abs/2203.03466).
ROWS_OF_BEST = {
    "best at full width": {"model.width": 24, "optimizer.learning_rate": 1e-3},
}
# The changes of each row from configs/sharp.py, which fine-tunes a run of "best".
ROWS_OF_SHARP = {
    "tuned, L1 alone": {"loss.perceptual": 0.0, "loss.adversarial": 0.0},
    "tuned, L1 and LPIPS": {"loss.adversarial": 0.0},
    "tuned, L1 and discriminator": {"loss.perceptual": 0.0},
    "tuned, L1, LPIPS and discriminator": {},
}


def make_config(row, photos, seed):
    """Returns the config of a row; `set_steps` sets its number of steps."""
    if row == "published":
        config = runpy.run_path(str(CONFIGS / "places.py"))["get_config"]("official")
    elif row in ROWS_OF_SHARP:
        config = runpy.run_path(str(CONFIGS / "sharp.py"))["get_config"]("faces")
        config.update_from_flattened_dict(ROWS_OF_SHARP[row])
    else:
        config = runpy.run_path(str(CONFIGS / "best.py"))["get_config"]("64")
        changes = BASE | ROWS[row] if row in ROWS else ROWS_OF_BEST.get(row, {})
        config.update_from_flattened_dict(changes)
    config.seed = seed
    config.image_size = 64
    config.data.source = f"folder:{photos / 'train'}"
    config.data.val_source = f"folder:{photos / 'val'}"
    config.data.crop_size = 178
    config.data.enlarge = False
    config.eval.every = 0
    config.checkpoint_every = 500
    config.keep_latest = 1
    config.keep_best = 0
    return config


def seconds_per_step(config):
    """Measures the median time of a step, without the first steps, which compile."""
    mesh = sharding.make_mesh()
    state, step = build.initial_state(config, mesh), build.train_step(config, mesh)
    batch = sharding.shard_batch(next(streams.training_batches(config)(0)), mesh)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        state, _ = step(state, batch)
        jax.block_until_ready(state)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def program(config):
    """Describes the properties that determine a step's time; rows that share them share a time."""
    name = f"width {config.model.width}, batch {config.batch_size}"
    if config.loss.adversarial:
        name += f", GAN of width {config.model.discriminator_width}"
    return name + ", LPIPS" * (config.loss.perceptual > 0)


def measure_costs(rows, photos):
    """Returns the seconds per step of each row, and measures those that are not stored."""
    path = RESULTS / "seconds_per_step.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    costs = {}
    for row in rows:
        config = make_config(row, photos, 0)
        name = program(config)
        if name not in kept:
            kept[name] = round(seconds_per_step(config), 4)
            print(f"{name}: {kept[name]} s per step", flush=True)
            path.write_text(json.dumps(kept, indent=1) + "\n")
        costs[row] = kept[name]
    return costs


def set_steps(config, number):
    """Sets the number of steps, and the values of configs/best.py that are fractions of it."""
    config.num_steps = number
    if config.optimizer.warmup_steps:
        config.optimizer.warmup_steps = number // 20
    if config.optimizer.decay_steps:
        config.optimizer.decay_steps = number
    if config.ema_decay:
        config.ema_decay = 1 - 20 / number


def score(config, workdir):
    """Returns the mean metrics on held-out images, with the masks of the published tables."""
    config.eval.num_examples = PICTURES
    for kind in config.masks.weights:
        config.masks.weights[kind] = float(kind == "irregular")
    summary = evaluate(config, workdir, measure=measure).summary()
    return {name: figures["mean"] for name, figures in summary.items()}


def measure(completed, image, mask):
    """Measures all metrics of a batch; LPIPS with AlexNet, since VGG16 is in the loss."""
    lpips = distances.load()(completed, image)["lpips"]
    return metrics.measure(completed, image, mask) | {"lpips": lpips}


def train(row, options, costs, seed):
    """Trains a row, after the run that it continues; returns its config and workdir."""
    config = make_config(row, options.photos, seed)
    set_steps(config, round(options.seconds / costs[row]))
    if row in ROWS_OF_SHARP:
        config.init_from = str(train("best", options, costs, seed)[1])
    workdir = options.workdir / file_name(row, options.seconds, seed)
    loop.train(config, workdir)
    return config, workdir


def file_name(row, seconds, seed):
    """Returns the name of a run and of its result."""
    return f"{row.replace(' ', '_').replace(',', '')}-{seconds}-{seed}"


def update(options):
    """Trains and scores the rows that have no stored result."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    costs = measure_costs([*options.rows, "best"], options.photos)
    for seed in options.seeds:
        for row in options.rows:
            path = RESULTS / f"{file_name(row, options.seconds, seed)}.json"
            if path.is_file():
                continue
            config, workdir = train(row, options, costs, seed)
            result = {
                "row": row,
                "seconds": options.seconds,
                "seed": seed,
                "steps": config.num_steps,
                "metrics": score(config, workdir),
            }
            path.write_text(json.dumps(result, indent=1) + "\n")
            print(f"{path.stem}: {result['metrics']['l1_hole']:.3f}", flush=True)


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = ["published", "best", *ROWS, *ROWS_OF_BEST, *ROWS_OF_SHARP]
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--workdir", type=Path, help="folder of the runs")
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seconds", type=int, default=180, help="training time of each row")
    parser.add_argument("--tables", type=Path, help="document to write")
    options = parser.parse_args(arguments)
    if options.photos:
        if not options.workdir:
            parser.error("--photos needs --workdir, the folder of the runs")
        logging.set_verbosity(logging.WARNING)
        # Each row compiles several times: to measure its cost, and for each seed.
        compile_cache.enable()
        update(options)
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*-*.json"))]
    lines = "\n".join(ablation_table.table(results))
    if options.tables:
        header = ablation_table.HEADER.format(pictures=PICTURES)
        options.tables.write_text(f"{header}{lines}\n")
    print(lines)


if __name__ == "__main__":
    main()
