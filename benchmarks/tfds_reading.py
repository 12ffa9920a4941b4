"""Measures how the images of a TFDS data set are read by one of several processes.

    python benchmarks/tfds_reading.py [--images 5000] [--formats tfrecord array_record]

The data set is made of random JPEG files of 64 px. The script prints a line of JSON for each file
format: kilobytes that a process and its workers read per image of its own, as one of 1, 8 and 64
processes; seconds from opening the data set a second time to the first batch of step 100,000, of
16 images; and the rank correlation of two epochs.
"""

import argparse
import functools
import io
import itertools
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from deepfill_jax import masks
from deepfill_jax.data import examples, pipeline, sources, workers

PROCESSES, BATCHES, STEP, SIZE, SHARDS = (1, 8, 64), 40, 100_000, 64, 8
SPEC = "tfds:random_images"
WORKERS = len(os.sched_getaffinity(0))


class RandomImages(tfds.core.GeneratorBasedBuilder):
    """Images of random colors, which grow from dark to bright in the order of the keys."""

    VERSION = tfds.core.Version("1.0.0")
    count = 0

    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(SIZE, SIZE, 3))})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        rng = np.random.default_rng(0)
        for i in range(self.count):
            coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
            stream = io.BytesIO()
            coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
            stream.seek(0)
            yield i, {"image": stream}


def start(batch_size, *, first_step=0, index=0, count=1):
    """Starts the batches of a process."""
    stream = pipeline.Stream(
        sources.open_source(SPEC),
        examples.Preprocessing(SIZE, 0, False, False),
        masks.box,
        seed=0,
        batch_size=batch_size,
        process_index=index,
        process_count=count,
        workers=WORKERS,
    )
    return pipeline.training_batches(stream, first_step)


def kilobytes_per_image(count):
    """Returns the kilobytes that a process of `count` reads per own image, by all its workers."""
    batch_size = 128
    batches = start(batch_size, count=count)
    next(batches)  # The first batch also reads the files' headers, which is done once.
    before = _bytes_read()
    for _ in itertools.islice(batches, BATCHES):
        pass
    read = (_bytes_read() - before) / (BATCHES * batch_size // count)
    return round(read / 1e3, 1)


def _bytes_read():
    pids = ["self", *(worker.pid for worker in workers.pool(WORKERS)._workers)]
    files = [Path(f"/proc/{pid}/io").read_text().split() for pid in pids]
    return sum(int(words[words.index("rchar:") + 1]) for words in files)


def rank_correlation(count):
    """Returns the correlation of the positions of the images in the first two epochs."""
    batches = start(1)
    images = [next(batches)["image"].tobytes() for _ in range(2 * count)]
    first, second = (
        {image: i for i, image in enumerate(x)} for x in (images[:count], images[count:])
    )
    positions = [[epoch[image] for image in first] for epoch in (first, second)]
    return round(float(np.corrcoef(positions)[0, 1]), 3)


def measure(file_format, count, folder):
    """Returns the result of one file format."""
    RandomImages.count = count
    builder = RandomImages(data_dir=folder, file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=SHARDS))
    tfds.builder = functools.partial(tfds.core.load.builder, data_dir=folder)
    sizes = [path.stat().st_size for path in Path(folder).rglob(f"*.{file_format}*")]
    result = {"format": file_format, "kilobytes_per_record": round(sum(sizes) / count / 1e3, 1)}
    for processes in PROCESSES:
        result[f"kilobytes_per_image_of_{processes}"] = kilobytes_per_image(processes)
    begin = time.perf_counter()
    next(start(16, first_step=STEP))
    result["seconds_to_resume"] = round(time.perf_counter() - begin, 2)
    return result | {"rank_correlation": rank_correlation(count)}


def main():
    """Runs the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--formats", nargs="+", default=["tfrecord", "array_record"])
    options = parser.parse_args()
    tf.config.set_visible_devices([], "GPU")
    tfds.disable_progress_bar()
    for file_format in options.formats:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
            print(json.dumps(measure(file_format, options.images, f"{folder}/data")), flush=True)


if __name__ == "__main__":
    main()
