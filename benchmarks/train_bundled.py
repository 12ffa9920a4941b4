"""Continues the training of a bundled model, from the state that the repository holds.

    pip install '.[train,scores]' matplotlib
    python benchmarks/train_bundled.py MODEL --photos FOLDER [--hours 2] [--config.KEY=VALUE ...]

FOLDER/MODEL/train and FOLDER/MODEL/val hold the photographs. The recipe is configs/sharp.py. The
run lies in runs/sharp/MODEL and saves every few minutes. After the given hours, or on SIGTERM or
Ctrl+C, its state becomes one file, results/trainings/MODEL.safetensors: the running average of the
generator and the discriminator in float16, with the recipe, steps, hours and validation curve of
every stage in the metadata. Nothing else of a run needs to survive the machine. The file that ships
is its generator:

    deepfill convert benchmarks/results/trainings/MODEL.safetensors --generator-only \
        --dtype float16 --output deepfill_jax/trained/MODEL.safetensors --overwrite
"""

import argparse
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import trainings

from deepfill_jax import weights
from deepfill_jax.convert import run
from deepfill_jax.errors import EXIT_CODES, PreemptedError, run_command

ROOT = Path(__file__).parents[1]
CURVE = ("step", "l1_hole", "psnr", "ssim")


def state_path(model):
    """Where the state of a model's training lies."""
    return trainings.RESULTS / f"{model}.safetensors"


def command(model, photos, workdir, overrides):
    """The training command: it resumes the run, or starts from the state or the shipped model."""
    state = state_path(model)
    return [
        *("nice", "-n", "19", sys.executable, "-m", "deepfill_jax.main"),
        f"--config={ROOT / 'configs' / 'sharp.py'}:{model}",
        f"--workdir={workdir}",
        f"--config.init_from={state if state.is_file() else model}",
        f"--config.data.source=folder:{photos / model / 'train'}",
        f"--config.data.val_source=folder:{photos / model / 'val'}",
        *overrides,
    ]


def train(arguments, hours):
    """Runs the command until it ends or `hours` are over; passes SIGTERM and SIGINT on to it."""
    # In a session of its own, so that Ctrl+C reaches it once.
    with subprocess.Popen(arguments, start_new_session=True) as process:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.send_signal(signal.SIGTERM))
        try:
            code = process.wait(3600 * hours if hours else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
    if code not in (0, EXIT_CODES[PreemptedError]):
        sys.exit(f"The training ended with exit code {code}; its state was not written.")


def stage(workdir):
    """What the metadata keeps of a run: its recipe, steps, hours and validation scores."""
    kept = trainings.read_stage(workdir)
    config, validation = kept["config"], kept["validation"]
    return {
        "steps": kept["steps"],
        "hours": round(kept["hours"], 3),
        "image_size": config["image_size"],
        "batch_size": config["batch_size"],
        "recipe": config["loss"],
        "learning_rate": config["optimizer"]["learning_rate"],
        "validation": {name: validation[name] for name in CURVE if name in validation},
    }


def write_state(model, workdir):
    """Writes the newest checkpoint as the state, after the stages that the last state lists."""
    path = state_path(model)
    before = weights.load(path if path.is_file() else model).metadata
    # The stage of a run that is resumed replaces the one that it had when it was stopped.
    stages = [x for x in before.get("stages", ()) if x.get("run") != run_id(workdir)]
    stages.append(stage(workdir) | {"run": run_id(workdir)})
    read = run.read(workdir)
    metadata = {
        **read.metadata,
        "step": sum(x["steps"] for x in stages),
        "hours": round(sum(x["hours"] for x in stages), 3),
        "license": before.get("license"),
        "stages": stages,
    }
    weights.save(path, dataclasses.replace(read, metadata=metadata), dtype=np.float16)
    print(
        f"State after {metadata['step']} steps and {metadata['hours']:.2f} hours: {path}",
        flush=True,
    )


def run_id(workdir):
    """A name of a run that stays the same when it is resumed: when its folder was made."""
    first = min(workdir.glob("events.out.tfevents.*"))
    return first.name.split(".")[3]


def main(arguments=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=("scenes", "faces"))
    parser.add_argument("--photos", type=Path, required=True, help="folder of MODEL/train and val")
    parser.add_argument("--hours", type=float, default=0, help="stop after so many; 0: never")
    parser.add_argument("--workdir", type=Path, help="default: runs/sharp/MODEL")
    parser.add_argument("--state-only", action="store_true", help="write the state, train nothing")
    options, overrides = parser.parse_known_args(arguments)
    workdir = options.workdir or ROOT / "runs" / "sharp" / options.model
    if not options.state_only:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        photos = options.photos.absolute()
        train(command(options.model, photos, workdir, overrides), options.hours)
    run_command(lambda: write_state(options.model, workdir))


if __name__ == "__main__":
    main()
