"""Continues the training of a bundled model from the state in the repository.

    pip install '.[train,scores]' matplotlib
    python benchmarks/train_bundled.py MODEL --photos FOLDER [--hours 2] [--config.KEY=VALUE ...]

FOLDER/MODEL/train and FOLDER/MODEL/val hold the photographs. The recipe is configs/sharp.py. The
workdir is runs/sharp/MODEL, and checkpoints are saved every few minutes. After the given hours, or
on SIGTERM or Ctrl+C, the state is written to one file, results/trainings/MODEL.safetensors: the
exponential moving average of the generator and the discriminator in float16, with the recipe,
steps, hours and validation curve of every stage in the metadata. This file is all that is needed to
continue on another machine. The bundled model file is its generator:

    deepfill convert benchmarks/results/trainings/MODEL.safetensors --generator-only \
        --dtype float16 --output deepfill_jax/trained/MODEL.safetensors --overwrite

`scenes` is converted with --replace-detail too.
"""

import argparse
import contextlib
import dataclasses
import functools
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
    """Returns the path of the state of a model's training."""
    return trainings.RESULTS / f"{model}.safetensors"


def command(model, photos, workdir, overrides):
    """Returns the training command, which resumes the run or starts from the state or the model."""
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
    """Runs the command until it ends or `hours` are over; forwards SIGTERM and SIGINT to it."""
    # In a new session, the process gets Ctrl+C only once, from the handler below.
    with subprocess.Popen(arguments, start_new_session=True) as process:
        with contextlib.suppress(OSError):  # Linux; in a new session, `nice` alone has no effect.
            Path(f"/proc/{process.pid}/autogroup").write_text("19")
        stop = functools.partial(process.send_signal, signal.SIGTERM)
        numbers = signal.SIGTERM, signal.SIGINT
        handlers = [signal.signal(number, lambda *_: stop()) for number in numbers]
        try:
            code = process.wait(3600 * hours if hours else None)
        except subprocess.TimeoutExpired:
            stop()
            code = process.wait()
        finally:
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
    if code not in (0, EXIT_CODES[PreemptedError]):
        sys.exit(f"The training ended with exit code {code}; its state was not written.")


def stage(workdir):
    """Returns the metadata of a run: its recipe, steps, hours and validation scores."""
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
    """Writes the newest checkpoint as the state, and appends the run to the list of stages."""
    path = state_path(model)
    before = weights.load(path if path.is_file() else model).metadata
    # A resumed run replaces its own earlier stage.
    stages = [x for x in before.get("stages", ()) if x.get("run") != run_id(workdir)]
    stages.append(stage(workdir) | {"run": run_id(workdir)})
    read = run.read(workdir)
    metadata = {
        **read.metadata,
        "step": sum(x["steps"] for x in stages),
        "hours": round(sum(x["hours"] for x in stages), 3),
        "license": before.get("license"),
        "parent": before.get("parent"),  # The run itself only continues the model of this name.
        "stages": stages,
    }
    weights.save(path, dataclasses.replace(read, metadata=metadata), dtype=np.float16)
    print(
        f"State after {metadata['step']} steps and {metadata['hours']:.2f} hours: {path}",
        flush=True,
    )


def run_id(workdir):
    """Returns an identifier that stays the same when the run resumes: the time of its start."""
    first = min(workdir.glob("events.out.tfevents.*"))
    return first.name.split(".")[3]


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=("scenes", "faces"))
    parser.add_argument("--photos", type=Path, required=True, help="folder of MODEL/train and val")
    parser.add_argument("--hours", type=float, default=0, help="stop after so many hours; 0: never")
    parser.add_argument("--workdir", type=Path, help="default: runs/sharp/MODEL")
    parser.add_argument(
        "--state-only", action="store_true", help="write the state without training"
    )
    options, overrides = parser.parse_known_args(arguments)
    workdir = options.workdir or ROOT / "runs" / "sharp" / options.model
    if not options.state_only:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        photos = options.photos.absolute()
        train(command(options.model, photos, workdir, overrides), options.hours)
    run_command(lambda: write_state(options.model, workdir))


if __name__ == "__main__":
    main()
