"""One loader in a process of its own, timed each time a line arrives.

    python -m loaders.clock NAME PHOTOS CORES BATCH SECONDS [ARGUMENT]

NAME is a module beside this one whose `batches(photos, cores, batch_size, argument)` never ends.
Answers are lines of JSON.
"""

import importlib
import json
import os
import sys
import time

WARM_UP = 32  # Batches, more than any of the loaders keeps ready.


def measure(batches, batch_size, seconds):
    """Images a second, and the milliseconds that the program itself, not its workers, needs."""
    for _ in range(WARM_UP):
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
    answers, sys.stdout = sys.stdout, sys.stderr  # Where libraries may print what they like.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    loader = importlib.import_module(f"loaders.{name}")  # After that: its libraries count cores.
    batches = loader.batches(photos, cores, batch_size, *argument)
    for _ in sys.stdin:
        print(json.dumps(measure(batches, batch_size, float(seconds))), file=answers, flush=True)


if __name__ == "__main__":
    main()
