"""What each choice of configs/best.py is worth: trainings of equal cost with one choice changed.

    python benchmarks/ablations.py --photos FOLDER --workdir RUNS [--rows ROW ...] [--seeds 0 1]
        [--seconds 180] [--tables FILE]

FOLDER holds `train` and `val`. A row is a recipe: "published" is the paper's authors', "base" what
configs/best.py was before its choices were measured, "best" what it is with those that won. Each
other row is "base" but for one choice, or "best" but for one. Every row gets as many steps of 64 px
as take it `--seconds` on this machine when it does nothing else: a wider network or a larger batch
gets fewer. The time of a step is measured first, for each network and batch, and kept, so that
trainings may run beside other work. Scores are those of the first 200 pictures of `val`, MMagic's
holes, the seeds' mean.

What was found is kept in `results/ablations`; a row that is there is not trained again. RUNS gets
the trainings themselves, and goes on where it was stopped. When a recipe changes, delete its row in
both, or the old one answers. Prints a table of all that is kept; `--tables` writes it to a
document, docs/ablations.md, and without `--photos` nothing is trained.
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
from deepfill_jax.convert import sources
from deepfill_jax.evaluate import scoring
from deepfill_jax.evaluate.methods import network_complete
from deepfill_jax.models import Generator
from deepfill_jax.train import build, loop

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "ablations"
CONFIGS = HERE.parent / "configs"
PICTURES = 200
# What configs/best.py was, where it is not what it is, by the keys of the config.
BASE = {
    "batch_size": 16,
    "loss.l1_whole": 0.0,
    "loss.l1_hole": 1.0,
    "loss.l1_known": 0.2,
    "optimizer.learning_rate": 1e-3,
}
# What each row changes in it,
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
# and in configs/best.py. Twice the width has half the rate: Adam's best rate falls with the width
# (Yang et al. 2021, https://arxiv.org/abs/2203.03466).
ROWS_OF_BEST = {
    "best at full width": {"model.width": 24, "optimizer.learning_rate": 1e-3},
}

HEAD = f"""# What each choice is worth

`python benchmarks/ablations.py --tables docs/ablations.md` wrote this page; with
`--photos FOLDER --workdir RUNS` the command trains first what is not kept yet.

"base" is a recipe for hours of two CPU cores at 64 px, as it was guessed; the rows are the same
with one choice changed. [`configs/best.py`](../configs/best.py), "best", is "base" with the batch,
the L1 and the rate that won. "published" is the recipe of the paper's authors, all of it. Data are
CelebA's aligned faces. Rows of as many seconds of two CPU cores have the same cost, not the same
number of steps. All are short. They find what makes training fast, and say little of what would be
best after weeks; a discriminator for instance is not there to lower an L1. Scores are of
{PICTURES} held-out faces with MMagic's irregular holes, means over the seeds. What lies between two
seeds of one row is chance; a row with one seed does not show how much that is.

"""


def make_config(row, photos, seed):
    """The config of a row, but for the number of its steps."""
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
    """The median of some steps, after the first."""
    mesh = sharding.make_mesh()
    state, step = build.initial_state(config, mesh), build.train_step(config, mesh)
    batch = sharding.shard_batch(next(build.training_batches(config)(0)), mesh)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        state, _ = step(state, batch)
        jax.block_until_ready(state)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def program(config):
    """What the time of a step depends on; rows that agree in it get as many steps as each other."""
    adversarial = config.loss.adversarial > 0
    return f"width {config.model.width}, batch {config.batch_size}" + ", GAN" * adversarial


def measure_costs(rows, photos):
    """Seconds of a step of each row, measured if they are not kept."""
    path = RESULTS / "seconds_per_step.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    costs = {}
    for row in rows:
        config = make_config(row, photos, 0)
        name = program(config)
        if name not in kept:
            kept[name] = round(seconds_per_step(config), 4)
            print(f"{name}: {kept[name]} s a step", flush=True)
            path.write_text(json.dumps(kept, indent=1) + "\n")
        costs[row] = kept[name]
    return costs


def set_steps(config, number):
    """Sets how long the training is, and with it what configs/best.py has as shares of it."""
    config.num_steps = number
    if config.optimizer.warmup_steps:
        config.optimizer.warmup_steps = number // 20
    if config.optimizer.decay_steps:
        config.optimizer.decay_steps = number
    if config.ema_decay:
        config.ema_decay = 1 - 20 / number


def score(config, workdir):
    """Means of the metrics over held-out pictures, with holes as the published tables have them."""
    config.eval.num_examples = PICTURES
    for kind in config.masks.weights:
        config.masks.weights[kind] = float(kind == "irregular")
    model = sources.read(str(workdir)).model
    complete = network_complete(Generator(model.variant), model.generator, sharding.make_mesh())
    report = scoring.evaluate(complete, build.validation_batches(config)())
    return {name: figures["mean"] for name, figures in report.summary().items()}


def update(options):
    """Trains and scores what is not kept yet."""
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
            found = {
                "row": row,
                "seconds": options.seconds,
                "seed": seed,
                "steps": config.num_steps,
            }
            found["metrics"] = score(config, options.workdir / name)
            path.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{name}: {found['metrics']['l1_hole']:.3f}", flush=True)


def table():
    """Yields Markdown: the means of the seeds, best first, and each seed's hole L1."""
    kept = {}
    for path in sorted(RESULTS.glob("*-*.json")):
        found = json.loads(path.read_text())
        kept.setdefault((found["seconds"], found["row"]), []).append(found)

    def mean(found, metric):
        return statistics.mean(one["metrics"][metric] for one in found)

    yield "| recipe | seconds | steps | hole L1 | of each seed | PSNR | SSIM |"
    yield "|---|---|---|---|---|---|---|"
    best_first = sorted(kept, key=lambda key: (key[0], mean(kept[key], "l1_hole")))
    for seconds, row in best_first:
        found = kept[seconds, row]
        seeds = ", ".join(f"{one['metrics']['l1_hole']:.2f}" for one in found)
        yield (
            f"| {row} | {seconds} | {found[0]['steps']} | {mean(found, 'l1_hole'):.2f} | {seeds} "
            f"| {mean(found, 'psnr'):.2f} | {mean(found, 'ssim'):.4f} |"
        )


def main(arguments=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = ["published", "best", *ROWS, *ROWS_OF_BEST]
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--workdir", type=Path, help="for the trainings")
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seconds", type=int, default=180, help="of training, of each row")
    parser.add_argument("--tables", type=Path, help="a document to write")
    options = parser.parse_args(arguments)
    if options.photos:
        if not options.workdir:
            parser.error("--photos needs --workdir, a folder for the trainings")
        logging.set_verbosity(logging.WARNING)
        # A row is compiled to measure its cost, and again for each seed.
        compile_cache.cache_on_disk()
        update(options)
    lines = "\n".join(table())
    if options.tables:
        options.tables.write_text(f"{HEAD}{lines}\n")
    print(lines)


if __name__ == "__main__":
    main()
