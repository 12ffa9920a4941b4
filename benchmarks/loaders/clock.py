"""The process of one loader, which times a round for each line of standard input.

    python -m loaders.clock NAME PHOTOS CORES BATCH SECONDS [ARGUMENT]

NAME is a module in this folder whose generator `batches(photos, cores, batch_size, argument)` never
ends. The results are printed as JSON lines.
"""

import importlib
import json
import os
import sys
import time

WARM_UP_BATCHES = 32  # More than any of the loaders prefetches.


def measure(batches, batch_size, seconds):
    """Returns images per second, and the CPU ms per image of this process without its workers."""
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    count, start, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += batch_size
    rate = count / (time.perf_counter() - start)
    return {"rate": rate, "own_ms": (time.process_time() - used) / count * 1e3}


def main():
    name, photos, cores, batch_size, seconds, *argument = sys.argv[1:]
    cores, batch_size = int(cores), int(batch_size)
    answers, sys.stdout = sys.stdout, sys.stderr  # Keeps prints of libraries out of the answers.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    # Imported after setting the affinity, because libraries count the cores when imported.
    loader = importlib.import_module(f"loaders.{name}")
    batches = loader.batches(photos, cores, batch_size, *argument)
    for _ in sys.stdin:
        print(json.dumps(measure(batches, batch_size, float(seconds))), file=answers, flush=True)


if __name__ == "__main__":
    main()
