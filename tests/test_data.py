import collections
import functools
import io
import itertools
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from deepfill_jax import masks
from deepfill_jax.data import examples, files, pipeline, sources
from deepfill_jax.errors import UsageError
from deepfill_jax.pictures import rgb

WHOLE = examples.Preprocessing(image_size=16, crop_size=0, enlarge=False, flip=False)
RANDOM = examples.Preprocessing(image_size=16, crop_size=12, enlarge=False, flip=True)


def encode(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def write_pictures(folder, count, size=20):
    """Writes pictures; picture i has red = 10 * i, and noise in green and blue shows crops."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        picture = noise(size, size, seed=i)
        picture[..., 0] = 10 * i
        Image.fromarray(picture).save(folder / f"{i:02d}.png")
    return sources.open_source(f"folder:{folder}")


def numbers(batches):
    """Returns the number of each example's picture, see `write_pictures`."""
    return [int(image[0, 0, 0]) // 10 for batch in batches for image in batch["image"]]


def take(count, batches):
    return list(itertools.islice(batches, count))


def make_stream(source, preprocessing, **options):
    return pipeline.Stream(source, preprocessing, masks.box_and_strokes, **options)


def training(source, preprocessing=RANDOM, *, seed=0, batch_size=4, **options):
    first_step = options.pop("first_step", 0)
    stream = make_stream(source, preprocessing, seed=seed, batch_size=batch_size, **options)
    return pipeline.training_batches(stream, first_step)


def evaluation(source, preprocessing=WHOLE, *, seed=0, batch_size=4, **options):
    num_examples = options.pop("num_examples", 0)
    stream = make_stream(source, preprocessing, seed=seed, batch_size=batch_size, **options)
    return list(pipeline.evaluation_batches(stream, num_examples))


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


# Tests of decoding.


def with_transparent_colours():
    picture = Image.new("P", (3, 2), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    return encode(picture, transparency=bytes([100, 255]))  # Only the unused color is transparent.


@pytest.mark.parametrize(
    "encoded, colour",
    [
        (encode(Image.new("L", (3, 2), 77)), (77, 77, 77)),
        (encode(Image.new("LA", (3, 2), (77, 255))), (77, 77, 77)),
        (encode(Image.new("1", (3, 2), 1)), (255, 255, 255)),
        (encode(Image.new("RGBA", (3, 2), (10, 20, 30, 255))), (10, 20, 30)),
        (encode(Image.new("RGB", (3, 2), (10, 20, 30)).quantize(4)), (10, 20, 30)),
        (with_transparent_colours(), (10, 20, 30)),
        (encode(Image.new("CMYK", (3, 2), (245, 235, 225, 0)), "TIFF"), (10, 20, 30)),
        (encode(Image.fromarray(np.full((2, 3), 77 * 256 + 200, np.uint16))), (77, 77, 77)),
        (encode(Image.new("RGB", (3, 2), (10, 20, 30)), "WEBP", lossless=True), (10, 20, 30)),
    ],
    ids=["grey", "grey+alpha", "1-bit", "RGBA", "palette", "P+alpha", "CMYK", "16-bit", "WebP"],
)
def test_decode_reads_any_mode(encoded, colour):
    with warnings.catch_warnings(action="error"):
        picture = rgb.decode(encoded)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, np.broadcast_to(colour, (2, 3, 3)))


def transparent_images():
    """Returns one image of each kind with a single pixel that is not opaque."""
    alpha = Image.new("L", (3, 2), 255)
    alpha.putpixel((1, 1), 254)
    images = {}
    for mode in ("L", "RGB"):
        image = Image.new(mode, (3, 2))
        image.putalpha(alpha)
        images[f"{image.mode}.png"] = encode(image)
    images["a.webp"] = encode(image, "WEBP", lossless=True, exact=True)
    images["a.tif"] = encode(image, "TIFF")
    for mode, shade, key in [("1", 1, 1), ("L", 7, 7), ("RGB", (1, 2, 3), (1, 2, 3)), ("P", 1, 1)]:
        image = Image.new(mode, (3, 2))
        if mode == "P":
            image.putpalette([0, 0, 0, 10, 20, 30])
        image.putpixel((1, 1), shade)
        images[f"key {mode}.png"] = encode(image, transparency=key)
    image = Image.fromarray(np.array([[300, 5]], np.uint16))
    images["key 16.png"] = encode(image, transparency=300)
    return images


@pytest.mark.parametrize("name", transparent_images())
def test_decode_refuses_transparent_pixels(name):
    with warnings.catch_warnings(action="error"):
        with pytest.raises(rgb.TransparentImageError, match="transparent pixels"):
            rgb.decode(transparent_images()[name])


def test_transparent_files_are_left_out_and_counted(tmp_path, caplog):
    write_pictures(tmp_path, 3)
    images = transparent_images()
    for name, encoded in images.items():
        (tmp_path / name).write_bytes(encoded)
    (tmp_path / "text.jpg").write_text("not an image")
    source = sources.open_source(f"folder:{tmp_path}")
    assert len(source) == 3 and len(source.left_out) == len(images) + 1
    unreadable, transparent = (x.getMessage() for x in caplog.records if x.levelname == "WARNING")
    assert "left out 1 of 13 image files that cannot be read: " in unreadable
    assert f"left out {len(images)} of 13 image files that have transparent pixels" in transparent
    assert all(name in transparent for name in images) and "text.jpg" not in transparent


def test_file_that_becomes_transparent_is_replaced_by_the_next(tmp_path, caplog):
    source = write_pictures(tmp_path, 2)
    Image.new("RGBA", (20, 20)).save(tmp_path / "00.png")
    assert numbers(evaluation(source, batch_size=2)) == [1, 1]
    assert "00.png can no longer be used" in caplog.text and "transparent pixels" in caplog.text


def test_transparent_image_of_a_tfds_data_set_is_refused():
    split = object.__new__(sources.TfdsSplit)  # Opening one needs a prepared data set.
    split.name = "tfds:own"
    with pytest.raises(UsageError, match="^tfds:own: an image cannot be used: it has transparent"):
        split.picture(transparent_images()["RGBA.png"])


@pytest.mark.parametrize("orientation, quarter_turns", [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_decode_applies_exif_orientation(orientation, quarter_turns):
    stored = noise(5, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = rgb.decode(encode(Image.fromarray(stored), exif=exif))
    np.testing.assert_array_equal(upright, np.rot90(stored, quarter_turns))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_decoded_jpeg_equals_pillows(mode, progressive, subsampling):
    picture = Image.fromarray(noise(9, 14)).resize((37, 23)).convert(mode)
    for orientation in range(9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        encoded = encode(
            picture, "JPEG", progressive=progressive, subsampling=subsampling, exif=exif
        )
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
        np.testing.assert_array_equal(rgb.decode(encoded), expected)


def test_decode_rejects_truncated_images_and_other_files():
    jpeg = encode(Image.fromarray(noise(64, 64)), "JPEG")
    for encoded in (b"", b"some text", jpeg[: len(jpeg) // 2], encode(Image.new("L", (9, 9)))[:40]):
        with pytest.raises(rgb.UnreadableImageError):
            rgb.decode(encoded)


# Tests of preprocessing.


def preprocess(picture, *, image_size, crop_size=0, enlarge=False, flip=False, seed=0):
    preprocessing = examples.Preprocessing(image_size, crop_size, enlarge, flip)
    return examples.preprocess(picture, preprocessing, np.random.default_rng(seed))


def windows(picture, height, width):
    """Maps the bytes of every crop of a picture to its position."""
    return {
        picture[top : top + height, left : left + width].tobytes(): (top, left)
        for top in range(picture.shape[0] - height + 1)
        for left in range(picture.shape[1] - width + 1)
    }


def test_whole_picture_is_resized_to_a_square():
    picture = noise(40, 30)
    expected = cv2.resize(picture, (16, 16), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(preprocess(picture, image_size=16), expected)


def test_crops_are_uniform_and_of_native_resolution():
    picture = noise(12, 10)
    positions = windows(picture, 8, 8)
    counts = collections.Counter(
        positions[preprocess(picture, image_size=8, crop_size=8, seed=seed).tobytes()]
        for seed in range(1500)
    )
    assert len(counts) == 5 * 3
    assert min(counts.values()) > 50  # The expected count is 100.


def test_crop_is_clipped_to_the_picture_on_each_axis():
    picture = noise(6, 20)
    resized = {
        cv2.resize(picture[:, left : left + 8], (16, 16)).tobytes(): left for left in range(13)
    }
    offsets = {
        resized[preprocess(picture, image_size=16, crop_size=8, seed=seed).tobytes()]
        for seed in range(300)
    }
    assert offsets == set(range(13))


def test_small_pictures_are_enlarged_to_contain_the_crop():
    picture = noise(10, 7)  # The height becomes 20 * 10 / 7 = 28.6, rounded up to 29.
    positions = windows(cv2.resize(picture, (20, 29)), 20, 20)
    options = {"image_size": 20, "crop_size": 20, "enlarge": True}
    cropped = {
        positions[preprocess(picture, **options, seed=seed).tobytes()] for seed in range(200)
    }
    assert cropped == {(top, 0) for top in range(10)}


def test_pictures_that_contain_the_crop_are_not_enlarged():
    picture = noise(11, 8)
    options = {"image_size": 6, "crop_size": 6, "seed": 3}
    enlarged = preprocess(picture, enlarge=True, **options)
    np.testing.assert_array_equal(enlarged, preprocess(picture, **options))


def test_half_of_the_images_are_flipped_horizontally():
    picture = noise(8, 8)
    flipped = [preprocess(picture, image_size=8, flip=True, seed=seed) for seed in range(400)]
    mirrored = [np.array_equal(image, picture[:, ::-1]) for image in flipped]
    same = [np.array_equal(image, picture) for image in flipped]
    assert sum(mirrored) + sum(same) == 400
    assert sum(mirrored) == pytest.approx(200, abs=40)  # The tolerance is 4 standard deviations.


@pytest.mark.parametrize("sizes", [(0, 0, False), (16, -1, False), (16, 0, True)])
def test_preprocessing_rejects_invalid_sizes(sizes):
    with pytest.raises(UsageError, match="_size"):
        examples.Preprocessing(*sizes, flip=False)


def test_masks_do_not_depend_on_picture_or_preprocessing():
    make = functools.partial(examples.make_example, draw_mask=masks.brush_strokes, seed=1)
    _, mask = make(noise(20, 20), WHOLE, index=5)
    _, same = make(noise(33, 50), RANDOM, index=5)
    _, other = make(noise(20, 20), WHOLE, index=6)
    np.testing.assert_array_equal(mask, same)
    assert not np.array_equal(mask, other)


def test_random_streams_of_an_element_are_independent():
    draws = {
        examples.make_rng(seed, index, stream).random()
        for seed, index, stream in itertools.product(range(3), range(3), range(3))
    }
    assert len(draws) == 27


# Tests of the training stream.


def test_training_batches_have_the_documented_shapes_and_types(tmp_path):
    batch = next(training(write_pictures(tmp_path, 6)))
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "image": ((4, 16, 16, 3), np.uint8),
        "mask": ((4, 16, 16, 1), np.uint8),
    }
    assert set(np.unique(batch["mask"])) == {0, 1}
    assert len({mask.tobytes() for mask in batch["mask"]}) == 4  # Each example has its own mask.


def test_each_epoch_is_a_new_permutation_of_the_files(tmp_path):
    source = write_pictures(tmp_path, 10)
    stream = numbers(take(10, training(source, batch_size=3)))
    epochs = [stream[:10], stream[10:20], stream[20:30]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert stream != numbers(take(10, training(source, batch_size=3, seed=1)))
    for number, epoch in enumerate(epochs):
        assert epoch == examples.make_rng(0, number, examples.ORDER).permutation(10).tolist()


@pytest.mark.parametrize("first_step", [1, 3, 5, 13])
def test_training_resumes_where_it_stopped(tmp_path, first_step):
    source = write_pictures(tmp_path, 10)
    whole = take(16, training(source))
    assert_same(whole, take(16, training(source)))
    assert_same(whole[first_step:], take(16 - first_step, training(source, first_step=first_step)))


def test_batches_do_not_depend_on_worker_timing(tmp_path):
    source = write_pictures(tmp_path, 10)
    Image.fromarray(noise(1500, 1500)).save(tmp_path / "03.png")  # As slow as 100 others.
    order = [examples.make_rng(0, epoch, examples.ORDER).permutation(10) for epoch in range(4)]
    alone = [
        examples.make_example(source.picture(i), RANDOM, masks.box_and_strokes, seed=0, index=index)
        for index, i in enumerate(np.concatenate(order))
    ]
    batches = take(10, training(source))
    for name, expected in zip(("image", "mask"), zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(
            np.concatenate([batch[name] for batch in batches]), np.stack(expected)
        )


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("stream", [lambda *a, **o: take(5, training(*a, **o)), evaluation])
def test_several_processes_see_the_batches_of_a_single_process(tmp_path, count, stream):
    source = write_pictures(tmp_path, 10)
    parts = [
        stream(source, RANDOM, batch_size=8, process_index=index, process_count=count)
        for index in range(count)
    ]
    together = [
        {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        for batches in zip(*parts, strict=True)
    ]
    assert_same(together, stream(source, RANDOM, batch_size=8))


@pytest.mark.parametrize("stream", [training, evaluation])
def test_invalid_seed_or_batch_size_is_refused_at_once(tmp_path, stream):
    source = write_pictures(tmp_path, 2)
    with pytest.raises(UsageError, match="config.batch_size=6 must be a multiple of 4"):
        stream(source, batch_size=6, process_count=4)
    with pytest.raises(UsageError, match="config.batch_size=0"):
        stream(source, batch_size=0)
    with pytest.raises(UsageError, match="config.seed=-1"):
        stream(source, seed=-1)


# Tests of the evaluation stream.


def test_evaluation_is_one_ordered_pass_with_a_padded_last_batch(tmp_path):
    batches = evaluation(write_pictures(tmp_path, 10))
    assert numbers(batches)[:10] == list(range(10))
    assert [batch["image"].shape for batch in batches] == [(4, 16, 16, 3)] * 3
    valid = np.concatenate([batch["valid"] for batch in batches])
    assert valid.dtype == bool and valid.tolist() == [True] * 10 + [False] * 2
    index = np.concatenate([batch["index"] for batch in batches])
    assert index.dtype == np.int64 and index.tolist() == list(range(12))


@pytest.mark.parametrize("num_examples, valid, batches", [(5, 5, 2), (4, 4, 1), (99, 10, 3)])
def test_evaluation_of_the_first_examples(tmp_path, num_examples, valid, batches):
    evaluated = evaluation(write_pictures(tmp_path, 10), num_examples=num_examples)
    assert len(evaluated) == batches
    assert sum(batch["valid"].sum() for batch in evaluated) == valid


def test_evaluation_examples_do_not_depend_on_the_batch_size(tmp_path):
    source = write_pictures(tmp_path, 6)
    small, large = (evaluation(source, RANDOM, batch_size=size) for size in (2, 6))
    for name in ("image", "mask"):
        np.testing.assert_array_equal(
            np.concatenate([batch[name] for batch in small]), large[0][name]
        )


# Tests of folders and lists.


def test_folder_is_searched_recursively_and_sorted(tmp_path):
    for name in ("b/2.png", "a/deeper/1.JPG", "c.bmp", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("not an image")
        else:
            Image.new("RGB", (8, 8)).save(tmp_path / name)
    source = sources.open_source(f"folder:{tmp_path}")
    assert source.name == f"folder:{tmp_path}" and len(source) == 3
    assert list(source.paths) == [str(tmp_path / p) for p in ("a/deeper/1.JPG", "b/2.png", "c.bmp")]


def test_unreadable_files_are_left_out_and_listed_once(tmp_path, caplog):
    write_pictures(tmp_path, 3)
    jpeg = encode(Image.fromarray(noise(64, 64)), "JPEG")
    (tmp_path / "whole.jpg").write_bytes(jpeg)
    (tmp_path / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    source = sources.open_source(f"folder:{tmp_path}")
    assert len(source) == 4
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "left out 3 of 7" in warning
    assert all(name in warning for name in ("half.jpg", "text.jpg", "empty.png"))
    assert "whole.jpg" not in warning


def test_warning_names_at_most_ten_unreadable_files(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(files, "MAX_MISSING", 1.0)
    write_pictures(tmp_path, 1)
    for i in range(12):
        (tmp_path / f"bad{i}.png").write_text("not an image")
    assert len(sources.open_source(f"folder:{tmp_path}")) == 1
    assert "left out 12 of 13" in caplog.text
    assert caplog.text.count(".png") == files._MAX_NAMED_FILES == 10


def test_list_keeps_its_order(tmp_path, caplog):
    write_pictures(tmp_path / "pictures", 3)
    lines = ["# comment", "pictures/02.png", "", f"{tmp_path}/pictures/00.png", "pictures/gone.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    source = sources.open_source(f"flist:{tmp_path}/list.txt")
    assert numbers(evaluation(source, batch_size=1)) == [2, 0]
    assert "left out 1 of 3" in caplog.text and "gone.png" in caplog.text


def test_identity_does_not_depend_on_the_parent_folder(tmp_path):
    for host in "ab":
        write_pictures(tmp_path / host, 3)
    identity = {host: sources.open_source(f"folder:{tmp_path / host}").identity() for host in "ab"}
    assert identity["a"] == identity["b"]
    (tmp_path / "b" / "01.png").write_text("not an image")
    assert sources.open_source(f"folder:{tmp_path / 'b'}").identity() != identity["a"]


@pytest.mark.parametrize(
    "spec, message",
    [
        ("folder:{}/missing", "there is no folder .*missing"),
        ("folder:{}/empty", "none of its 0 picture files can be used;"),
        ("folder:{}/bad", "none of its 1 picture files can be used;"),
        ("folder:{}/clear", "none of its 1 picture files can be used: 1 of them has transparent"),
        ("flist:{}/missing.txt", "missing.txt cannot be read"),
        ("flist:{}/bad/bad.png", "none of its 1 picture files can be used"),
        ("flist:{}/empty", "empty cannot be read"),
        ("{}", "none of the forms folder:PATH, flist:FILE"),
        ("folder:", "none of the forms"),
        ("tfds:", "none of the forms"),
    ],
)
def test_unusable_sources_are_refused(tmp_path, spec, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/bad.png").write_bytes(b"\xff\xfe not an image")
    (tmp_path / "clear").mkdir()
    Image.new("RGBA", (20, 20)).save(tmp_path / "clear" / "clear.png")
    with pytest.raises(UsageError, match=message):
        sources.open_source(spec.format(tmp_path))


def test_file_that_becomes_unreadable_is_replaced_by_the_next(tmp_path, caplog):
    source = write_pictures(tmp_path, 5)
    for name in ("01.png", "04.png"):
        (tmp_path / name).write_text("not an image")
    (tmp_path / "02.png").unlink()
    for _ in range(2):
        assert numbers(evaluation(source, batch_size=5)) == [0, 3, 3, 3, 0]
    assert sorted(numbers(take(5, training(source, batch_size=1)))) == [0, 0, 3, 3, 3]
    assert caplog.text.count("can no longer be used") == 3


def test_lost_disk_raises_usage_error(tmp_path):
    source = write_pictures(tmp_path, 3)
    batches = training(source)
    next(batches)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="can be read any more"):
        take(50, batches)


# Tests of TFDS.


@pytest.fixture
def mock_tfds():
    with tfds.testing.mock_data(num_examples=10):
        yield


@pytest.mark.parametrize("dataset", ["places365_small", "celeb_a_hq/64"])
def test_tfds_streams_like_files(mock_tfds, dataset):
    source = sources.open_source(f"tfds:{dataset}")
    assert len(source) == 10
    whole = take(6, training(source))
    assert whole[0]["image"].shape == (4, 16, 16, 3)
    assert_same(whole[2:], take(4, training(source, first_step=2)))
    halves = [take(6, training(source, process_index=i, process_count=2)) for i in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        np.testing.assert_array_equal(batch["image"], np.concatenate([p["image"] for p in parts]))
    valid = np.concatenate([batch["valid"] for batch in evaluation(source)])
    assert valid.sum() == 10 and valid.size == 12


def test_each_tfds_epoch_is_a_new_permutation(mock_tfds):
    source = sources.open_source("tfds:places365_small:validation")
    images = evaluation(source, batch_size=10)[0]["image"]
    first, second = take(2, training(source, WHOLE, batch_size=10))
    known = {image.tobytes() for image in images}
    assert len(known) == 10
    assert {image.tobytes() for image in first["image"]} == known
    assert {image.tobytes() for image in second["image"]} == known
    assert not np.array_equal(first["image"], second["image"])


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
def test_unusable_tfds_source_is_refused(tmp_path, monkeypatch, spec, message):
    monkeypatch.setattr(tfds, "builder", functools.partial(tfds.builder, data_dir=tmp_path))
    with pytest.raises(UsageError, match=message) as error:
        sources.open_source(spec)
    assert "\n" not in str(error.value)


def test_unread_stream_does_not_block_process_exit(tmp_path):
    write_pictures(tmp_path, 3)
    script = f"""
from deepfill_jax import masks
from deepfill_jax.data import examples, pipeline, sources
source = sources.open_source("folder:{tmp_path}")
size = examples.Preprocessing(64, 0, False, False)
stream = pipeline.Stream(source, size, masks.brush_strokes, seed=0, batch_size=4)
batches = pipeline.training_batches(stream)
next(batches)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True)
