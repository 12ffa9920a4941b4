"""Ablations of configs/best.py: runs of equal training time with one choice changed in each.

    python benchmarks/ablations.py --photos FOLDER --workdir RUNS [--rows ROW ...] [--seeds 0 1]
        [--seconds 180] [--tables FILE]

FOLDER holds `train` and `val`. A row is a recipe: "published" is the recipe of the paper's authors,
"base" is configs/best.py before its choices were measured, and "best" is configs/best.py with the
choices that scored best. Every other row is "base" or "best" with one change. Every row trains at
64 px for as many steps as it completes in `--seconds` on this machine when idle: a wider network or
a larger batch gets fewer steps. The time of a step is measured first, for each network and batch
size, and stored, so that runs may share the machine with other work. Scores are means over the
seeds and the first 200 images of `val`, with MMagic's irregular masks.

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

import jax
from absl import logging

from deepfill_jax import compile_cache, sharding
from deepfill_jax.data import streams
from deepfill_jax.evaluate import evaluate
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

HEADER = f"""# Ablations

`python benchmarks/ablations.py --tables docs/ablations.md` generates this page.
With `--photos FOLDER --workdir RUNS`, the command first trains the rows that have no stored result.

"base" is an initial guess of a recipe for a few hours on two CPU cores at 64 px; each other row changes one choice.
[`configs/best.py`](../configs/best.py), "best", is "base" with the batch size, L1 terms and learning rate that scored best.
"published" is the complete recipe of the paper's authors.
The data set is CelebA's aligned faces.
Rows with the same number of seconds on two CPU cores have the same cost, but not the same number of steps.
All runs are short: they show what makes training fast, and say little about the result after weeks of training.
A discriminator, for instance, does not aim at a lower L1.
Scores are means over the seeds and {PICTURES} held-out faces with MMagic's irregular masks.
Differences between two seeds of a row are chance; a row with one seed does not show how large they are.

"""  # noqa: E501


def make_config(row, photos, seed):
    """Returns the config of a row; `set_steps` sets its number of steps."""
    if row == "published":
        config = runpy.run_path(str(CONFIGS / "places.py"))["get_config"]("official")
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
    adversarial = config.loss.adversarial > 0
    return f"width {config.model.width}, batch {config.batch_size}" + ", GAN" * adversarial


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
    summary = evaluate(config, workdir).summary()
    return {name: figures["mean"] for name, figures in summary.items()}


def update(options):
    """Trains and scores the rows that have no stored result."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    costs = measure_costs(options.rows, options.photos)
    for seed in options.seeds:
        for row in options.rows:
            name = f"{row.replace(' ', '_').replace(',', '')}-{options.seconds}-{seed}"
            path = RESULTS / f"{name}.json"
            if path.is_file():
                continue
            config = make_config(row, options.photos, seed)
            set_steps(config, round(options.seconds / costs[row]))
            loop.train(config, options.workdir / name)
            result = {
                "row": row,
                "seconds": options.seconds,
                "seed": seed,
                "steps": config.num_steps,
            }
            result["metrics"] = score(config, options.workdir / name)
            path.write_text(json.dumps(result, indent=1) + "\n")
            print(f"{name}: {result['metrics']['l1_hole']:.3f}", flush=True)


def table():
    """Yields a Markdown table: means over the seeds, best first, and the hole L1 of each seed."""
    kept = {}
    for path in sorted(RESULTS.glob("*-*.json")):
        result = json.loads(path.read_text())
        kept.setdefault((result["seconds"], result["row"]), []).append(result)

    def mean(results, metric):
        return statistics.mean(result["metrics"][metric] for result in results)

    yield "| recipe | seconds | steps | hole L1 | of each seed | PSNR | SSIM |"
    yield "|---|---|---|---|---|---|---|"
    best_first = sorted(kept, key=lambda key: (key[0], mean(kept[key], "l1_hole")))
    for seconds, row in best_first:
        results = kept[seconds, row]
        seeds = ", ".join(f"{result['metrics']['l1_hole']:.2f}" for result in results)
        yield (
            f"| {row} | {seconds} | {results[0]['steps']} | {mean(results, 'l1_hole'):.2f} "
            f"| {seeds} | {mean(results, 'psnr'):.2f} | {mean(results, 'ssim'):.4f} |"
        )


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = ["published", "best", *ROWS, *ROWS_OF_BEST]
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
    lines = "\n".join(table())
    if options.tables:
        options.tables.write_text(f"{HEADER}{lines}\n")
    print(lines)


if __name__ == "__main__":
    main()
