"""Completing pictures: any size in, the same size out, known pixels untouched."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from references import random_variables

import deepfill_jax
from deepfill_jax import compiler, inpaint, weights
from deepfill_jax import image as pixels
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint import Inpainter, read_image, read_mask
from deepfill_jax.models import Generator, make_variant

SIZES = [(1, 1), (7, 5), (61, 67), (8, 200)]


def make_model(name):
    variant = make_variant(name, width=2, discriminator_width=1)
    return weights.Model(variant, random_variables(Generator(variant))["params"])


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter(make_model("official"))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    weights.save(path, make_model("official"))
    return path


def make_picture(height, width, seed=0):
    """uint8 [H, W, 3], and a mask, uint8 [H, W] of 0 and 255, with pixels of both kinds if it can.

    The last row and column are in the hole in part, so that padding has to do with it.
    """
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.where(rng.uniform(size=(height, width)) < 0.3, 255, 0).astype(np.uint8)
    mask[-1, -1] = 255
    return picture, mask


def make_batch(count, height, width):
    rng = np.random.default_rng(1)
    image = rng.uniform(-1, 1, (count, height, width, 3)).astype(np.float32)
    mask = (rng.uniform(size=(count, height, width, 1)) < 0.3).astype(np.float32)
    mask[:, -1, -1] = 1
    return image, mask


def known(image, mask):
    return image[np.broadcast_to(mask < 0.5, image.shape)]


@pytest.mark.parametrize("height, width", SIZES)
def test_any_size_comes_back_with_its_known_pixels(inpainter, height, width):
    picture, mask = make_picture(height, width)
    completed = inpainter(picture, mask)
    assert completed.shape == picture.shape and completed.dtype == np.uint8
    np.testing.assert_array_equal(completed[mask == 0], picture[mask == 0])
    assert (completed[mask == 255] != picture[mask == 255]).any()

    image, mask = make_batch(1, height, width)
    prediction = inpainter.predict(image, mask)
    for x in prediction:
        assert x.shape == image.shape and x.dtype == np.float32 and np.isfinite(x).all()
    np.testing.assert_array_equal(known(prediction.completed, mask), known(image, mask))
    np.testing.assert_array_equal(
        known(prediction.completed, 1 - mask), known(prediction.refined, 1 - mask)
    )


def test_the_smallest_picture_goes_through_reflecting_convolutions():
    completed = Inpainter(make_model("mmagic"))(*make_picture(1, 1))
    assert completed.shape == (1, 1, 3)


def test_multiples_of_eight_are_what_the_generator_makes(inpainter):
    image, mask = make_batch(1, 64, 72)
    model = make_model("official")
    apply = jax.jit(Generator(model.variant).apply, compiler_options=compiler.options())
    expected = apply({"params": model.generator}, pixels.mask_out(image, mask), mask)
    for ours, theirs in zip(inpainter.predict(image, mask), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_padding_mirrors_image_and_mask(inpainter):
    image, mask = make_batch(1, 61, 67)
    below, right = np.r_[:61, 59:56:-1], np.r_[:67, 65:60:-1]
    padded = inpainter.predict(image[:, below][:, :, right], mask[:, below][:, :, right])
    for ours, theirs in zip(inpainter.predict(image, mask), padded, strict=True):
        np.testing.assert_array_equal(ours, theirs[:, :61, :67])


@pytest.mark.parametrize("garbage", [1.0, 1e30, np.nan, np.inf])
def test_what_the_hole_holds_has_no_influence(inpainter, garbage):
    image, mask = make_batch(1, 61, 67)
    expected = inpainter.predict(image, mask)
    spoilt = inpainter.predict(np.where(mask > 0.5, np.float32(garbage), image), mask)
    for ours, theirs in zip(spoilt, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_network_sees_binary_masks_only(inpainter):
    image, mask = make_batch(1, 61, 67)
    expected = inpainter.predict(image, mask).refined
    for same in (np.where(mask > 0.5, 0.51, 0.5), mask > 0.5, mask.astype(np.int64)):
        np.testing.assert_array_equal(inpainter.predict(image, same).refined, expected)


def test_a_batch_is_its_images_one_by_one(inpainter):
    image, mask = make_batch(2, 61, 67)
    both = inpainter.predict(image, mask)
    for i in range(2):
        one = inpainter.predict(image[i : i + 1], mask[i : i + 1])
        for x, y in zip(both, one, strict=True):
            np.testing.assert_allclose(x[i], y[0], atol=1e-6)


def test_sizes_of_one_padded_size_share_a_compilation():
    inpainter = Inpainter(make_model("official"))
    for height, width in [(1, 1), (3, 8), (8, 8), (7, 5)]:
        inpainter(*make_picture(height, width))
    assert inpainter._predict._cache_size() == 1


def test_all_256_values_survive(inpainter):
    picture = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    mask = np.zeros((16, 16), np.uint8)
    mask[3, 3] = 255
    completed = inpainter(picture, mask)
    np.testing.assert_array_equal(completed[mask == 0], picture[mask == 0])


def test_without_a_hole_the_image_comes_back(inpainter):
    picture, _ = make_picture(7, 5)
    completed = inpainter(picture, np.zeros((7, 5), np.uint8))
    np.testing.assert_array_equal(completed, picture)
    completed[0] = 0  # Is not the caller's own array.
    assert picture[0].any()
    image, mask = make_batch(1, 7, 5)
    np.testing.assert_array_equal(inpainter.predict(image, 0 * mask).completed, image)


def test_files_pil_pictures_and_arrays_are_the_same(inpainter, tmp_path):
    picture, mask = make_picture(7, 5)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    expected = inpainter(picture, mask)
    for image, hole in [
        (tmp_path / "picture.png", str(tmp_path / "mask.png")),
        (Image.fromarray(picture), Image.fromarray(mask)),
        (picture, Image.fromarray(mask).convert("1")),
        (jax.numpy.asarray(picture), mask[..., np.newaxis]),
    ]:
        np.testing.assert_array_equal(inpainter(image, hole), expected)


@pytest.mark.parametrize(
    "values, hole",
    [
        ([0, 1, 127, 128, 255], [0, 0, 0, 1, 1]),
        ([0, 2, 127, 0, 3], [0, 0, 0, 0, 0]),
        ([0, 1, 0, 1, 1], [0, 1, 0, 1, 1]),
        ([False, True], [0, 1]),
        ([0.0, 0.5, 0.51, 1.0], [0, 0, 1, 1]),
        ([0.0, 0.4, 0.9], [0, 0, 1]),
        ([0.0, 255.0, 127.5], [0, 1, 1]),
        ([0, 0], [0, 0]),
    ],
)
def test_mask_values(values, hole):
    expected = np.array(hole, bool)[np.newaxis, :, np.newaxis]
    values = np.array([values])
    np.testing.assert_array_equal(read_mask(values), expected)
    if values.dtype == int:
        np.testing.assert_array_equal(read_mask(Image.fromarray(values.astype(np.uint8))), expected)


def test_files_are_turned_upright(tmp_path):
    picture, mask = make_picture(7, 5)
    exif = Image.Exif()
    exif[274] = 6  # Orientation: shown turned by 90 degrees clockwise.
    for array, read in ((picture, read_image), (mask, read_mask)):
        Image.fromarray(array).save(tmp_path / "turned.png", exif=exif)
        np.testing.assert_array_equal(
            read(tmp_path / "turned.png"), np.rot90(read(array), axes=(1, 0))
        )


def test_grey_pictures_become_rgb(tmp_path):
    grey = make_picture(7, 5)[0][..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=-1))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-60])


def test_what_cannot_be_used_is_named(inpainter, tmp_path):
    picture, mask = make_picture(16, 16)
    with pytest.raises(UsageError, match="mask is 9x16 pixels, the image 16x16 .width x height"):
        inpainter(picture, mask[:, :9])
    with pytest.raises(UsageError, match=r"uint8 \[H, W, 3\] in RGB, not float64 \(16, 16, 3\)"):
        inpainter(picture / 255, mask)
    with pytest.raises(UsageError, match=r"uint8 \(16, 16, 4\)"):
        inpainter(np.zeros((16, 16, 4), np.uint8), mask)
    with pytest.raises(UsageError, match=r"\(0, 16, 3\)"):
        inpainter(picture[:0], mask[:0])
    with pytest.raises(UsageError, match=r"mask array must be .* uint8 \(16, 16, 3\)"):
        inpainter(picture, picture)
    with pytest.raises(UsageError, match=r"mask array must be .* object \(\)"):
        inpainter(picture, None)
    broken = tmp_path / "broken.png"
    Image.fromarray(picture).save(broken)
    truncate(broken)
    for image, hole in ((broken, mask), (picture, broken)):
        with pytest.raises(UsageError, match="broken.png cannot be read as a picture: "):
            inpainter(image, hole)
    with pytest.raises(UsageError, match="absent.png cannot be read as a picture: .*No such file"):
        inpainter(tmp_path / "absent.png", mask)
    with pytest.raises(UsageError, match="There is no model file absent.safetensors"):
        Inpainter.load("absent.safetensors")


def test_predict_refuses_other_shapes_and_types(inpainter):
    image, mask = make_batch(2, 8, 8)
    for bad_image, bad_mask in [
        (image.astype(np.uint8), mask),
        (image[0], mask[0]),
        (image, mask[:1]),
        (image, mask[..., 0]),
        (image[:, :7], mask),
        (image[:0], mask[:0]),
        (image[..., :1], mask),
    ]:
        with pytest.raises(UsageError, match=r"float image \[B, H, W, 3\]") as error:
            inpainter.predict(bad_image, bad_mask)
        assert f"{bad_image.dtype} {bad_image.shape}" in str(error.value)
        assert f"{bad_mask.dtype} {bad_mask.shape}" in str(error.value)


@pytest.fixture
def folders(tmp_path):
    """Three pictures in `images`, of other suffixes and with masks in `masks`."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for seed, stem in enumerate(("a", "b.1", "c")):
        picture, mask = make_picture(7, 5, seed)
        Image.fromarray(picture).save(tmp_path / "images" / f"{stem}.bmp")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{stem}.png")
    (tmp_path / "images" / "notes.txt").write_text("no picture")
    (tmp_path / "images" / "._a.bmp").write_text("what macOS leaves behind")
    return tmp_path


def command(model, images, masks, output, *more):
    """Runs the command in this process and returns its exit code."""
    try:
        inpaint.main(
            ["--model", f"{model}", "--images", f"{images}", "--masks", f"{masks}"]
            + ["--output", f"{output}", *more]
        )
    except SystemExit as end:
        return end.code
    return 0


def test_command_on_folders(model_file, folders, capsys):
    images, masks, output = folders / "images", folders / "masks", folders / "new" / "out"
    assert command(model_file, images, masks, output) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{images / 'a.bmp'} -> {output / 'a.png'}: 5x7, ")
    assert lines[-1].startswith("3 of 3 pictures completed in ")
    inpainter = Inpainter.load(model_file)
    for stem in ("a", "b.1", "c"):
        expected = inpainter(images / f"{stem}.bmp", masks / f"{stem}.png")
        np.testing.assert_array_equal(read_image(output / f"{stem}.png"), expected)
    assert len(list(output.iterdir())) == 3


def test_command_on_a_file_with_one_mask(model_file, folders):
    image, mask = folders / "images" / "a.bmp", folders / "masks" / "c.png"
    assert command(model_file, image, mask, folders / "here" / "new.bmp") == 0
    assert command(model_file, image, mask, folders / "folder") == 0
    expected = Inpainter.load(model_file)(image, mask)
    for path in (folders / "here" / "new.bmp", folders / "folder" / "a.png"):
        np.testing.assert_array_equal(read_image(path), expected)
    # A folder of images may share it, too.
    assert command(model_file, folders / "images", mask, folders / "shared") == 0
    np.testing.assert_array_equal(read_image(folders / "shared" / "a.png"), expected)
    assert len(list((folders / "shared").iterdir())) == 3


def test_command_overwrites_only_when_told(model_file, folders, capsys):
    image, mask = folders / "images" / "a.bmp", folders / "masks" / "a.png"
    output = folders / "out.png"
    output.write_text("precious")
    assert command(model_file, image, mask, output) == 2
    assert f"Already there: {output}; --overwrite" in capsys.readouterr().err
    assert output.read_text() == "precious"
    assert command(model_file, image, mask, output, "--overwrite") == 0
    assert read_image(output).shape == (7, 5, 3)


def test_command_does_the_others_when_one_cannot_be_read(model_file, folders, capsys):
    truncate(folders / "images" / "b.1.bmp")
    Image.new("L", (3, 3)).save(folders / "masks" / "c.png")
    assert command(model_file, folders / "images", folders / "masks", folders / "out") == 1
    assert [path.name for path in (folders / "out").iterdir()] == ["a.png"]
    output = capsys.readouterr()
    assert "1 of 3 pictures completed" in output.out
    unreadable, misfit, last = output.err.splitlines()
    assert "b.1.bmp cannot be read as a picture" in unreadable
    assert "c.bmp ->" in misfit and "The mask is 3x3 pixels, the image 5x7" in misfit
    assert "b.1.bmp" in last and "c.bmp" in last and "a.bmp" not in last


def refused(capsys, *arguments):
    """The one line that the command refuses with, before it reads the model."""
    assert command("absent.safetensors", *arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    return line


def test_command_refuses_before_any_work(folders, capsys):
    images, masks, output = (folders / name for name in ("images", "masks", "out"))
    for name in ("a.png", "c.png"):
        (masks / name).rename(folders / name)
    line = refused(capsys, images, masks, output)
    assert "holds no mask for a.bmp, c.bmp; a mask has its image's name" in line
    for name in ("a.png", "c.png"):
        (folders / name).rename(masks / name)

    line = refused(capsys, folders / "absent", masks, output)
    assert "absent is neither a picture nor a folder that holds pictures" in line
    assert "nowhere is neither" in refused(capsys, images, folders / "nowhere", output)
    (folders / "empty").mkdir()
    assert "empty is neither" in refused(capsys, folders / "empty", masks, output)

    assert "cannot be a folder" in refused(capsys, images, masks, images / "notes.txt")
    assert "no model file absent.safetensors" in refused(capsys, images, masks, output)

    Image.new("RGB", (7, 5)).save(images / "a.png")
    assert "holds other files named as a.bmp up to" in refused(capsys, images, masks, output)


def test_importing_the_package_is_cheap_and_its_names_are_lazy():
    assert deepfill_jax.Inpainter is Inpainter
    assert deepfill_jax.Prediction._fields == ("coarse", "refined", "completed")
    with pytest.raises(AttributeError, match="Inpaintre"):
        deepfill_jax.Inpaintre  # noqa: B018
    code = """
import sys
import deepfill_jax
assert "jax" not in sys.modules and "numpy" not in sys.modules
for name in ("tensorflow", "torch", "clu", "ml_collections", "cv2", "optax"):
    sys.modules[name] = None  # As if it were not installed.
from deepfill_jax import Inpainter, Prediction
"""
    root = Path(deepfill_jax.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
