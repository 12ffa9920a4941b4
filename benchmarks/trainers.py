"""Compares training with MMagic's trainer: same images, masks, initial weights and recipe.

    pip install '.[train,convert]' matplotlib
    python benchmarks/trainers.py --photos FOLDER [--case train-96-2] [--steps 300]
        [--init published] [--config CONFIG --config.KEY=VALUE ...]

FOLDER holds `faces/train` and `faces/val`. The batches are made once, by our data pipeline with the
masks of `configs/places.py`, which has the settings of MMagic's config, and written to a file that
both sides read. Both start from the same random weights. Each side of `compare.py` runs in its own
process: MMagic's inpaintor with the optimisers of its config, and our training step. They alternate
in blocks of steps. A third run, of our training step from a generator one float32 rounding larger,
shows the drift that rounding alone causes. The trained weights of both sides, MMagic's converted to
ours, are evaluated by the same code on the same held-out images and fixed masks.

With CONFIG (NAME.py or NAME.py:ARGUMENT), our training command then trains that config for as many
seconds as MMagic's steps took, including MMagic's first step and our compilation. It uses the same
images at the same size; its other settings are unchanged.

The script writes INIT-SIZE.json and .png to `results/trainers`, and prints tables.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import histories
import jax
import numpy as np
import quality
from histories import BLOCK, History
from ml_collections import ConfigDict
from peers import mmagic_environment, model_files
from peers.protocol import Case, Results, cores, cpu
from peers.worker import Peer, Worker, largest_difference

from deepfill_jax import sharding, weights
from deepfill_jax.convert import mmagic, run
from deepfill_jax.data import streams
from deepfill_jax.errors import EXIT_CODES, PreemptedError, RunError, run_command
from deepfill_jax.tensors import unflatten
from deepfill_jax.train import build

RESULTS = Path(__file__).parent / "results" / "trainers"
# Sizes must exceed this: MMagic's widest dilation mirrors 16 pixels of maps of a quarter the size.
MIN_SIZE = 64


def make_config(options: argparse.Namespace) -> ConfigDict:
    """Returns the config of both sides and the evaluation: MMagic's with other data and sizes."""
    config = quality.make_config(options.photos, "faces", "irregular", options.number)
    config.image_size = options.case.size
    config.batch_size = options.case.batch
    config.num_steps = options.steps
    config.model.width = options.width
    config.model.init = options.init
    config.data.source = f"folder:{options.photos / 'faces' / 'train'}"
    return config


def initial_model(config: ConfigDict) -> weights.Model:
    """Returns the initial weights of both sides, the random initialisation of our training."""
    state = build.initial_state(config, sharding.make_mesh())
    discriminator = {"params": state.discriminator.params, "spectral": state.discriminator.spectral}
    return weights.Model(build.variant(config), state.generator.params, discriminator)


def nudge(model: weights.Model) -> weights.Model:
    """Returns the model with a generator that is one float32 rounding larger."""
    larger = np.float32(1) + np.finfo(np.float32).eps
    generator = jax.tree.map(lambda x: x * larger, model.generator)
    return dataclasses.replace(model, generator=generator)


def write_batches(config: ConfigDict, path: Path) -> None:
    """Writes the first batches of our training stream in the peers' format."""
    batches = streams.training_batches(config)(0)
    first = list(itertools.islice(batches, config.num_steps))
    batches.close()
    np.savez(path, **{name: np.stack([batch[name] for batch in first]) for name in first[0]})


def train(case: Case, peers: Sequence[Peer], batches: Path, steps: int) -> list[History]:
    """Trains all sides alternately in blocks of `BLOCK` steps; the first block is one step.

    Raises:
        RunError: A process ended, a loss is not finite, or the losses of the first step differ.
    """
    losses, answers = ([[] for _ in peers] for _ in range(2))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        workers = []
        for index, peer in enumerate(peers):
            files = Path(folder, f"{index}.npz"), Path(folder, "cache"), batches
            workers.append(Worker(peer, case, *files))
            stack.callback(workers[-1].close)
        ends = sorted({1, *range(BLOCK, steps, BLOCK), steps})
        for first, end in itertools.pairwise([0, *ends]):
            for index, worker in enumerate(workers):
                for step in range(first, end):
                    answers[index].append(worker.call())
                    losses[index].append(worker.result())
                    if not all(map(np.isfinite, losses[index][-1].values())):
                        name = peers[index].name
                        raise RunError(f"A loss of {name} is not finite in step {step + 1}.")
            for other in range(1, len(peers)) if first == 0 else ():
                both = (peers[0], peers[other]), (workers[0], workers[other])
                largest_difference(case, *both)
            print(f"step {end} of {steps}", file=sys.stderr, flush=True)
        return list(map(_history, workers, losses, answers))


def _history(worker: Worker, losses: list[Results], answers: list[dict[str, Any]]) -> History:
    versions = worker.call("weights")["versions"]
    by_name = {name: np.array([step[name] for step in losses]) for name in losses[0]}
    times = (np.array([answer[key] for answer in answers]) for key in ("seconds", "cpu_seconds"))
    return History(by_name, *times, worker.result(), versions)


def to_model(tensors: Results, variant: weights.Variant) -> weights.Model:
    """Makes a model of weights with MMagic's names or ours."""
    if any(name.startswith("disc.") for name in tensors):
        return mmagic.from_state_dict(tensors, source="MMagic").model
    return weights.Model(variant, **unflatten(tensors))


def train_for(
    seconds: float, name: str, changes: Sequence[str], config: ConfigDict, folder: Path
) -> weights.Model:
    """Runs the training command, and stops it after some seconds.

    Args:
        seconds: Maximum duration, from the start of the command.
        name: The config to train.
        changes: Arguments `--config.KEY=VALUE`.
        config: The config with the data sources and the image size to use.
        folder: The workdir.

    Raises:
        RunError: The command failed.
    """
    given = {"image_size": config.image_size, "eval.every": 0}
    given |= {f"data.{key}": config.data[key] for key in ("source", "val_source", "crop_size")}
    command = [sys.executable, "-m", "deepfill_jax.main", f"--config={name}", f"--workdir={folder}"]
    command += [f"--config.{key}={value}" for key, value in given.items()]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder / 'cache'}"}
    process = subprocess.Popen([*command, *changes], env=environment, stdout=sys.stderr)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.send_signal(signal.SIGTERM)
    if process.wait() not in (0, EXIT_CODES[PreemptedError]):
        raise RunError(f"--config={name} did not train for {seconds:.0f} s; see its error above.")
    return run.read(folder)


def score(
    models: dict[str, weights.Model], config: ConfigDict, folder: Path
) -> dict[str, dict[str, Any]]:
    """Evaluates the mean-colour baseline and models on the held-out images.

    Args:
        models: The models, by label.
        config: The config with the images and masks.
        folder: A folder for temporary model files.
    """
    methods = {"mean": "mean"}
    for label, model in models.items():
        methods[label] = str(folder / f"{len(methods)}.safetensors")
        weights.save(Path(methods[label]), model)
    return {label: quality.report(method, config).summary() for label, method in methods.items()}


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line into options and the config's arguments `--config.KEY=VALUE`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--case", type=Case.parse, default="train-96-2", help="train-SIZE-BATCH")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--number", type=int, default=256, help="number of held-out images")
    parser.add_argument("--init", choices=build.INITS, default="published")
    parser.add_argument("--config", help="a config to train for the same time")
    mmagic_environment.add_arguments(parser)
    options, changes = parser.parse_known_args()
    if wrong := [x for x in changes if not (options.config and x.startswith("--config."))]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if options.case.kind != "train" or options.case.size <= MIN_SIZE:
        parser.error(
            f"--case={options.case} must be train-SIZE-BATCH, with a size above {MIN_SIZE}."
        )
    if options.steps <= BLOCK:
        parser.error(f"--steps={options.steps} must be more than {BLOCK}, the length of a block.")
    return options, changes


def main() -> None:
    """Runs the command."""
    options, changes = parse()
    python = mmagic_environment.make_environment(options.environment)
    config = make_config(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = initial_model(config)
        peers = model_files.write_both(model, folder, mmagic.write, python)
        nudged = peers[0]._replace(weights=folder / "nudged.safetensors")
        weights.save(nudged.weights, nudge(model))
        write_batches(config, folder / "batches.npz")
        sides = *peers, nudged
        runs = train(options.case, sides, folder / "batches.npz", options.steps)
        ours, theirs, _ = runs
        results = {"case": str(options.case), "cpu": cpu(), "cores": cores()}
        results |= {"width": options.width, "init": options.init, **histories.summarise(*runs)}
        models = {
            "before": model,
            "MMagic": to_model(theirs.weights, build.variant(config)),
            "deepfill_jax": to_model(ours.weights, build.variant(config)),
        }
        if options.config:
            seconds = theirs.seconds.sum()
            label = Path(options.config).name
            models[label] = train_for(seconds, options.config, changes, config, folder / "run")
            results["config"] = [options.config, *changes]
            results["config_steps"] = models[label].metadata["step"]
        print("scoring", file=sys.stderr, flush=True)
        results["scores"] = score(models, config, folder)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{options.init}-{options.case.size}.json"
    path.write_text(json.dumps(results) + "\n")
    histories.plot(*runs, path.with_suffix(".png"))
    print("\n".join(histories.tables(results)))


if __name__ == "__main__":
    run_command(main)
