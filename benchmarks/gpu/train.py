"""Trains on a folder of images for some minutes, in phases of increasing image size.

    PYTHONPATH=.:benchmarks python benchmarks/gpu/train.py --photos FOLDER --work FOLDER
        --output OUT/train.jsonl [--minutes 8]

The script is for machines without TensorFlow; elsewhere use deepfill_jax.main. After each minute it
prints losses, speed and scores on held-out images as a line of JSON. It also writes
OUT/model.safetensors, the exponential moving average in float16, and OUT/samples.png with masked,
completed and true images. The folder --work holds the first copy of the JSON lines and checkpoints,
from which rerunning the command resumes; earlier minutes count.
"""

import collections
import dataclasses
import functools
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import programs

from deepfill_jax import checkpoint, masks, sharding, weights
from deepfill_jax.data import examples
from deepfill_jax.errors import RunError, UsageError, run_command
from deepfill_jax.evaluate import scoring
from deepfill_jax.evaluate.methods import make_inference_step
from deepfill_jax.pictures import rgb
from deepfill_jax.train.state import create_train_state, make_optimizer
from deepfill_jax.train.step import make_train_step

MASKS = {"box_and_strokes": 0.5, "irregular": 0.5}
SUFFIXES = (".jpg", ".jpeg", ".png")
HELD_OUT_EVERY = 20  # One image in this many is held out for scoring,
MAX_SCORED = 64  # up to this number of images.
BATCHES_AHEAD = 8  # Number of batches to prefetch.
ADAM = {"beta1": 0.9, "beta2": 0.999, "warmup_steps": 200, "decay_steps": 0, "clip_norm": 1.0}
EMA_DECAY = 0.999
REPORT_SECONDS = 60

Batch = dict[str, np.ndarray]


class Phase(NamedTuple):
    """A phase of the training; on the command line SIDE:BATCH:SHARE:ADVERSARIAL."""

    side: int
    batch: int
    share: float  # Fraction of the minutes.
    adversarial: float  # Weight of the adversarial loss; 0 trains without the discriminator.

    @classmethod
    def parse(cls, text: str) -> "Phase":
        """Parses SIDE:BATCH:SHARE:ADVERSARIAL."""
        side, batch, share, adversarial = text.split(":")
        return cls(int(side), int(batch), float(share), float(adversarial))


def read(folder: Path) -> list[np.ndarray]:
    """Decodes all images of a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise UsageError(f"{folder} must hold two images or more ({', '.join(SUFFIXES)}).")
    with futures.ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: rgb.decode(path.read_bytes()), paths))


class Stream:
    """Batches of images with masks, each a function of its number."""

    def __init__(self, pictures: Sequence[np.ndarray], phase: Phase, crop: int, *, train: bool):
        self._pictures, self._batch, self._seed = pictures, phase.batch, 0 if train else 1
        self._preprocessing = examples.Preprocessing(phase.side, crop, crop > 0, flip=train)
        self._draw_mask = masks.sampler(MASKS, min_area=0.15, max_area=0.65, folder="")

        @functools.lru_cache(maxsize=BATCHES_AHEAD)
        def order(epoch: int) -> np.ndarray:
            return examples.make_rng(self._seed, epoch, examples.ORDER).permutation(len(pictures))

        self._order = order

    def _example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, place = divmod(index, len(self._pictures))
        picture = self._pictures[self._order(epoch)[place]]
        return examples.make_example(
            picture, self._preprocessing, self._draw_mask, seed=self._seed, index=index
        )

    def batch(self, number: int) -> Batch:
        """Makes one batch; `valid` marks its elements of the first pass over the images."""
        index = np.arange(number * self._batch, (number + 1) * self._batch)
        image, mask = map(np.stack, zip(*map(self._example, index), strict=True))
        return {"image": image, "mask": mask, "index": index, "valid": index < len(self._pictures)}

    def once(self) -> Iterator[Batch]:
        """Yields all images once; the last batch is padded with the first ones."""
        return map(self.batch, range(-(-len(self._pictures) // self._batch)))

    def endless(self, first: int) -> Iterator[Batch]:
        """Yields batches endlessly from number `first`, prefetched by threads."""
        pending = collections.deque()
        with futures.ThreadPoolExecutor() as pool:
            for number in itertools.count(first):
                pending.append(pool.submit(self.batch, number))
                if len(pending) == BATCHES_AHEAD:
                    yield pending.popleft().result()


class Run:
    """A training run over all its phases."""

    def __init__(self, options):
        self._options = options
        self._mesh = sharding.make_mesh()
        dtype, rounding = programs.PRECISIONS[options.precision]
        jax.config.update("jax_default_matmul_precision", rounding)
        self._networks = programs.make_networks(options.architecture, options.width, dtype)
        optimizer = make_optimizer(learning_rate=options.learning_rate, **ADAM)
        self._parts = *self._networks, optimizer, optimizer
        pictures = read(options.photos)
        self._scored = pictures[::HELD_OUT_EVERY][:MAX_SCORED]
        self._trained = [picture for i, picture in enumerate(pictures) if i % HELD_OUT_EVERY]
        self._curve = options.work / "train.jsonl"
        self._checkpoints = checkpoint.Checkpoints(options.work, keep_latest=2, keep_best=1)
        options = {"seed": 0, "averaged": True, "mesh": self._mesh}
        create = functools.partial(create_train_state, *self._parts, **options)
        restored = self._checkpoints.restore_latest(jax.eval_shape(create), self._mesh)
        self._state = create() if restored is None else restored

    def train(self) -> None:
        """Trains the remaining phases."""
        lines = self._curve.read_text().splitlines() if self._curve.exists() else ()
        spent = json.loads(lines[-1])["seconds"] if lines else 0.0
        self._start, end = time.monotonic() - spent, 0.0
        for phase in self._options.phases:
            end += 60 * self._options.minutes * phase.share
            if spent < end:
                self._train_phase(phase, end)
        self._checkpoints.close()

    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _train_phase(self, phase: Phase, end: float) -> None:
        recipe = dataclasses.replace(programs.RECIPE, adversarial=phase.adversarial)
        options = {"ema_decay": EMA_DECAY, "grad_accum_steps": 1, "mesh": self._mesh}
        step = make_train_step(*self._parts, recipe=recipe, **options)
        infer = make_inference_step(self._networks[0], self._mesh)
        crop = self._options.crop
        batches = Stream(self._trained, phase, crop, train=True).endless(int(self._state.step))
        held_out = Stream(self._scored, phase, crop, train=False)
        while True:
            began, history = self._seconds(), []
            while not history or self._seconds() < min(began + REPORT_SECONDS, end):
                self._state, scalars = step(self._state, self._put(next(batches)))
                history.append(scalars)
            history = jax.device_get(history)
            means = {name: float(np.mean([s[name] for s in history])) for name in history[0]}
            if not np.isfinite(list(means.values())).all():
                raise RunError(
                    f"Losses are not finite: {means}. The last checkpoint is kept; rerun the "
                    "command, possibly with a lower --learning-rate."
                )
            speed = len(history) * phase.batch / (self._seconds() - began)
            self._keep(phase, infer, held_out, {"images_per_second": round(speed, 1), **means})
            if self._seconds() >= end:
                return

    def _put(self, batch: Batch) -> dict[str, jax.Array]:
        return sharding.shard_batch({k: batch[k] for k in ("image", "mask")}, self._mesh)

    def _keep(self, phase: Phase, infer, held_out: Stream, figures: dict[str, float]) -> None:
        """Scores the state, and writes the model, a checkpoint and a JSON line."""
        params, out = self._state.inference_params, self._options.output.parent

        def complete(batch: Batch) -> dict[str, np.ndarray]:
            return jax.device_get(infer(params, self._put(batch)))

        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            summary = scoring.score(complete, held_out.once(), output=folder).summary()
            shutil.copy(f"{folder}/grid.png", out / "samples.png")
        scores = {f"scored/{name}": round(x["mean"], 4) for name, x in summary.items()}
        step = int(self._state.step)
        metadata = {"step": step, "batch_size": phase.batch, "image_size": phase.side}
        model = weights.Model(self._networks[0].variant, jax.device_get(params), metadata=metadata)
        weights.save(out / "model.safetensors", model, dtype=np.float16)
        metrics = {name: x["mean"] for name, x in summary.items()}
        self._checkpoints.save(self._state, metrics=metrics)
        metadata = {"seconds": round(self._seconds(), 1), "step": step, **phase._asdict()}
        programs.report(self._curve, **metadata, **figures, **scores, **programs.machine())
        shutil.copy(self._curve, self._options.output)


def main() -> None:
    parser = programs.arguments(__doc__)
    parser.set_defaults(output=Path("train.jsonl"))
    parser.add_argument("--architecture", default="official")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    phases = [Phase(64, 128, 0.3, 0.0), Phase(128, 64, 0.3, 0.1), Phase(256, 32, 0.4, 0.1)]
    parser.add_argument("--phases", type=Phase.parse, nargs="+", default=phases)
    parser.add_argument(
        "--crop", type=int, default=0, help="side of random crops in pixels; 0: none"
    )
    parser.add_argument("--precision", choices=programs.PRECISIONS, default="bfloat16")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    Run(parser.parse_args()).train()


if __name__ == "__main__":
    run_command(main)
