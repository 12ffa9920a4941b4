"""TFDS data sets as sources; the prepared ones are built here, of images made in memory."""

import functools
import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from data_streams import WHOLE, assert_same, evaluation, make_stream, noise, numbers, take, training
from PIL import Image

from deepfill_jax.data import order, pipeline, records, sources, tfds_split
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import rgb

COUNT, SHARDS = 20, 3
FORMATS = ("tfrecord", "array_record")


class TinyImages(tfds.core.GeneratorBasedBuilder):
    """Image i has red = 10 * i, and noise in green and blue."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tf.int64,
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(COUNT):
            image = noise(20, 24, seed=i)
            image[..., 0] = 10 * i
            yield i, {"image": image, "label": i, "name": "image" * i}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The data folders by file format."""
    folders = {}
    for file_format in FORMATS:
        folders[file_format] = tmp_path_factory.mktemp(file_format)
        builder = TinyImages(data_dir=folders[file_format], file_format=file_format)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(num_shards=SHARDS)
        )
    return folders


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "deepfill_jax" / "tfrecord_lengths"


@pytest.fixture
def open_split(prepared, monkeypatch, cache):
    builder = tfds.builder

    def open_split(split="train", file_format="tfrecord"):
        folder = prepared[file_format]
        monkeypatch.setattr(tfds, "builder", functools.partial(builder, data_dir=folder))
        return sources.open_source(f"tfds:tiny_images:{split}")

    return open_split


def shown(source):
    return [int(source.picture(item)[0, 0, 0]) // 10 for item in range(len(source))]


@pytest.mark.parametrize("file_format", FORMATS)
def test_items_are_the_records_in_the_order_of_the_files(open_split, file_format):
    source = open_split(file_format=file_format)
    assert len(source) == COUNT and sorted(shown(source)) == list(range(COUNT))
    (batch,) = evaluation(source, WHOLE, batch_size=COUNT)
    assert numbers([batch]) == shown(source)
    assert len({source.encoded(item).path for item in range(COUNT)}) == SHARDS
    assert source.size(3) == (24, 20)


@pytest.mark.parametrize("file_format", FORMATS)
def test_slices_are_parts_of_the_split(open_split, file_format):
    whole = shown(open_split(file_format=file_format))
    parts = [shown(open_split(split, file_format)) for split in ("train[:9]", "train[9:]")]
    assert parts == [whole[:9], whole[9:]]
    assert open_split("train[:9]").identity() != open_split("train[9:]").identity()


def test_both_formats_have_the_same_batches(open_split):
    batches = [take(6, training(open_split(file_format=name))) for name in FORMATS]
    assert_same(*batches)


@pytest.mark.parametrize("file_format", FORMATS)
def test_streams_resume_and_divide_like_files(open_split, file_format):
    source = open_split(file_format=file_format)
    whole = take(6, training(source))
    assert_same(whole[2:], take(4, training(source, first_step=2)))
    halves = [take(6, training(source, process_index=i, process_count=2)) for i in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        np.testing.assert_array_equal(batch["image"], np.concatenate([p["image"] for p in parts]))


@pytest.mark.parametrize("count", [1, 8, 64])
def test_each_process_reads_only_its_own_records(open_split, count):
    read = []

    class Counted:
        def encoded(self, item):
            read.append(item)
            return source.encoded(item)

        def __len__(self):
            return len(source)

    source, batch_size = open_split(), 128
    for index in (0, count - 1):
        stream = make_stream(
            Counted(),
            WHOLE,
            seed=0,
            batch_size=batch_size,
            process_index=index,
            process_count=count,
        )
        read.clear()
        batches = pipeline.training_batches(stream, first_step=100_000)
        next(batches)
        batches.close()
        started = stream.workers + pipeline.READY_BATCHES + 1
        assert len(read) == started * batch_size // count


def test_two_epochs_are_independent_permutations():
    count = 10_000
    items = order.shuffled(count, seed=0)
    first, second = items(np.arange(count)), items(np.arange(count, 2 * count))
    assert sorted(first) == sorted(second) == list(range(count))
    correlation = np.corrcoef(np.argsort(first), np.argsort(second))[0, 1]
    assert abs(correlation) < 5 / count**0.5  # The standard deviation is 1 / sqrt(count).


def test_second_start_reads_no_record_length(open_split, cache, monkeypatch):
    first = open_split()
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(records, "lengths", None)  # Calling it fails.
    second = open_split()
    assert [second.encoded(i) for i in range(COUNT)] == [first.encoded(i) for i in range(COUNT)]


def test_damaged_cache_is_replaced(open_split, cache):
    open_split()
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert sorted(shown(open_split())) == list(range(COUNT))
    assert path.read_bytes() == whole


# Tests of records.


def test_lengths_are_those_of_tensorflow(tmp_path):
    data = [b"", b"abc", bytes(1000)]
    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in data:
            writer.write(record)
    lengths = records.lengths(path, 3)
    assert lengths.tolist() == [0, 3, 1000]
    places = zip(records.offsets(lengths).tolist(), lengths.tolist(), strict=True)
    assert [records.TfRecord(path, *place).read() for place in places] == data
    for count in (2, 4):
        with pytest.raises(ValueError, match=f"does not consist of {count} records"):
            records.lengths(path, count)
    with open(path, "r+b") as file:
        file.truncate(500)
    with pytest.raises(ValueError, match="does not consist of 3 records"):
        records.lengths(path, 3)


def example(**features):
    feature = {name: tf.train.Feature(**value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def texts(*values):
    return {"bytes_list": tf.train.BytesList(value=values)}


def test_image_is_found_among_other_features():
    content = bytes(range(256)) * 300
    others = {
        "a": {"int64_list": tf.train.Int64List(value=[-1, 2**40])},
        "b": {"float_list": tf.train.FloatList(value=[1.5] * 40)},
        "image2": texts(b"wrong"),
        "z": texts(b"image", b"x"),
    }
    assert records.image(example(image=texts(content), **others)) == content


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "holds no image"),
        (example(other=texts(b"x")), "holds no image"),
        (example(image=texts()), "holds no image"),
        (example(image=texts(bytes(500)))[:6], "damaged"),
        (b"\xff" * 9, "damaged"),
        (b"\x0b", "damaged"),
    ],
)
def test_records_without_an_image_are_refused(data, message):
    with pytest.raises(rgb.UnreadableImageError, match=message):
        records.image(data)


@pytest.mark.parametrize("file_format", FORMATS)
def test_lost_files_end_the_stream_with_a_sentence(open_split, file_format, tmp_path):
    source = open_split(file_format=file_format)
    gone = source.encoded(0)._replace(path=str(tmp_path / "gone"))
    source.encoded = lambda item: gone
    with pytest.raises(UsageError, match="^tfds:tiny_images:train: an image cannot be decoded; "):
        take(1, training(source))


# Tests of refused data sets.


def test_transparent_image_is_refused():
    stream = io.BytesIO()
    Image.new("RGBA", (3, 2)).save(stream, "PNG")
    split = object.__new__(tfds_split.TfdsSplit)  # Opening one needs a prepared data set.
    split.name, split._content = "tfds:own", lambda item: stream.getvalue()
    with pytest.raises(UsageError, match="^tfds:own: an image cannot be used: it has transparent"):
        split.picture(0)


@pytest.mark.parametrize(
    "split, message",
    [
        ("test", "Unknown split"),
        ("train[:0]", "this split contains no images"),
        ("train[", "split"),
    ],
)
def test_unusable_split_is_refused(open_split, split, message):
    with pytest.raises(UsageError, match=f"^tfds:tiny_images:.*{message}") as error:
        open_split(split)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "spec, message",
    [
        ("tfds:places365_small", "not prepared in .*run `tfds build places365_small` once"),
        ("tfds:celeb_a_hq/256", "`tfds build celeb_a_hq/256` once, with a --manual_dir .*data2x2"),
        ("tfds:no_such_data_set", "no_such_data_set not found"),
        ("tfds:celeb_a_hq/no_such_size", "no_such_size not found"),
        ("tfds:wine_quality", "no feature image, only features, quality"),
    ],
)
def test_unusable_data_set_is_refused(tmp_path, monkeypatch, spec, message):
    monkeypatch.setattr(tfds, "builder", functools.partial(tfds.builder, data_dir=tmp_path))
    with pytest.raises(UsageError, match=message) as error:
        sources.open_source(spec)
    assert "\n" not in str(error.value)


def test_missing_and_damaged_files_are_refused(tmp_path, monkeypatch, cache):
    TinyImages(data_dir=tmp_path).download_and_prepare()
    monkeypatch.setattr(tfds, "builder", functools.partial(tfds.builder, data_dir=tmp_path))
    (path,) = tmp_path.rglob("*.tfrecord*")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="tfrecord.*does not consist of 20 records.*prepare"):
        sources.open_source("tfds:tiny_images")
    path.unlink()
    with pytest.raises(UsageError, match="1 of 1 files are missing, such as "):
        sources.open_source("tfds:tiny_images")


def test_workers_read_records_without_tensorflow():
    code = "import sys; sys.modules['tensorflow'] = None; import deepfill_jax.data.workers"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
