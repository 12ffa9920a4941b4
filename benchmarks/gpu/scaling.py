"""Calculates what limits training on many GPUs: the GPU, the gradients' exchange or the host.

    python benchmarks/gpu/scaling.py [--gpus 1 8 64 256] [--batches 16 64 128] [--of-bound 1.0]
        [--gpu h200]

Nothing runs. The GPU's time follows from the plans of `plan.py`; the other constants below are
measured (benchmarks/README.md), or assumed where the comment says so. A step takes

    max(GPU + exchange, host, workers)

because the host prepares the next batch while a step runs. The exchange is not overlapped.
"""

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

PLANS = Path(__file__).parents[1] / "results" / "plans.jsonl"
PER_MACHINE = 8
CORES_PER_GPU = 8  # As in docs/distributed.md.
BANDWIDTHS = {"h100": 3.35e12, "h200": 4.8e12}  # Bytes per second, from NVIDIA's data sheets.
FLOP_RATE = 989e12  # Dense matrix products in bfloat16, of both.
NVLINK = 450e9  # Bytes per second in each direction.
NETWORK = 50e9  # The same between machines, per GPU; assumed: 400 Gb/s InfiniBand.
HOP_SECONDS = 10e-6  # Assumed, per all-reduce and level of a tree, in each direction.
# Measured per image: the main process, and one core of a worker process.
MAIN_SECONDS, WORKER_SECONDS = 0.14e-3, 1 / 843
# Measured per step: start of a program with 303 arrays in the state, and transfer of the batch, for
# a process with one device and for one with eight.
START_SECONDS = {1: 2.1e-3, 8: 6.5e-3}
BUSY = 0.95  # Least share of a step in which a "busy" GPU computes.


class Step(NamedTuple):
    """Seconds of the parts of a training step."""

    gpu: float
    exchange: float
    host: float
    workers: float

    @property
    def seconds(self) -> float:
        """Seconds of the whole step."""
        return max(self.gpu + self.exchange, self.host, self.workers)

    @property
    def limit(self) -> str:
        """What the step would have to do faster."""
        if self.seconds > self.gpu + self.exchange:
            return "host" if self.host > self.workers else "workers"
        return "GPU" if self.gpu >= BUSY * self.seconds else "exchange"


class Constants(NamedTuple):
    """What the plans say about the training step in bfloat16."""

    fixed_bytes: float  # Moved in a GPU's memory, whatever the batch.
    image_bytes: float  # The same per image.
    image_flop: float
    exchanged_bytes: float
    all_reduces: int

    @classmethod
    def read(cls, path: Path) -> "Constants":
        """Reads the lines of `plan.py`."""
        # The first line of a plan is that of the default GPU.
        plans = {plan["plan"]: plan for plan in reversed(list(map(json.loads, path.open())))}
        few, many = (plans[f"1:{batch}:bfloat16"] for batch in (16, 64))
        image_bytes = (many["gb_moved"] - few["gb_moved"]) * 1e9 / (64 - 16)
        several = plans["8:128:bfloat16"]
        return cls(
            few["gb_moved"] * 1e9 - 16 * image_bytes,
            image_bytes,
            many["tflop"] * 1e12 / 64,
            several["mb_between_devices"] * 1e6,
            several["between_devices"]["all-reduce"],
        )

    def gpu_seconds(self, batch: int, gpu: str) -> float:
        """Returns the bound of the time of a step with a batch on a GPU of `BANDWIDTHS`."""
        moved = self.fixed_bytes + self.image_bytes * batch
        return max(moved / BANDWIDTHS[gpu], self.image_flop * batch / FLOP_RATE)

    def exchange_seconds(self, gpus: int) -> float:
        """Returns the time for the gradients, which a ring sends and receives almost twice."""
        if gpus == 1:
            return 0.0
        link = NVLINK if gpus <= PER_MACHINE else NETWORK
        sent = 2 * (gpus - 1) / gpus * self.exchanged_bytes
        return sent / link + self.all_reduces * 2 * math.log2(gpus) * HOP_SECONDS


def estimate(
    constants: Constants,
    *,
    gpus: int,
    batch: int,
    per_process: int = 1,
    gpu: str = "h100",
    of_bound: float = 1.0,
) -> Step:
    """Estimates a step.

    Args:
        constants: From the plans.
        gpus: Number of GPUs.
        batch: Images per GPU.
        per_process: GPUs of each process, a key of `START_SECONDS`.
        gpu: A key of `BANDWIDTHS`.
        of_bound: Share of its bound that a GPU reaches.
    """
    images = batch * per_process
    return Step(
        constants.gpu_seconds(batch, gpu) / of_bound,
        constants.exchange_seconds(gpus),
        START_SECONDS[per_process] + MAIN_SECONDS * images,
        WORKER_SECONDS * images / (CORES_PER_GPU * per_process),
    )


def busy_batch(constants: Constants, **options: Any) -> int:
    """Returns the least batch per GPU, a multiple of 8, with which the GPUs are busy."""
    batches = itertools.count(8, 8)
    return next(x for x in batches if estimate(constants, batch=x, **options).limit == "GPU")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--of-bound", type=float, default=1.0, help="share of the bound reached")
    parser.add_argument("--gpu", choices=BANDWIDTHS, default="h100")
    options = parser.parse_args()
    constants = Constants.read(PLANS)
    common = {"gpu": options.gpu, "of_bound": options.of_bound}
    print(
        "| GPUs | per process | batch per GPU | GPU, ms | exchange, ms | host, ms | workers, ms "
        "| limit | images/s, at most | GPUs busy |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for gpus, per_process, batch in itertools.product(options.gpus, (1, 8), options.batches):
        if per_process > gpus:
            continue
        step = estimate(constants, gpus=gpus, batch=batch, per_process=per_process, **common)
        parts = " | ".join(f"{1e3 * seconds:.1f}" for seconds in step)
        rate, busy = gpus * batch / step.seconds, step.gpu / step.seconds
        print(
            f"| {gpus} | {per_process} | {batch} | {parts} | {step.limit} | {rate:,.0f} "
            f"| {busy:.0%} |"
        )
    for gpus in filter(lambda x: x > 1, options.gpus):
        batch = busy_batch(constants, gpus=gpus, **common)
        print(f"With {gpus} GPUs, each computes for {BUSY:.0%} of a step from {batch} images on.")


if __name__ == "__main__":
    main()
