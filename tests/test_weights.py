"""The model file: saving and loading are exact, and unusable files are refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from references import random_variables

from deepfill_jax import weights
from deepfill_jax.errors import UsageError
from deepfill_jax.models import Discriminator, Generator, make_variant
from deepfill_jax.tensors import check_tensors

METADATA = {"source": "a test", "step": 7, "recipe": {"l1": 1.0}}


def make_model(*, discriminator=False, width=2):
    variant = make_variant("mmagic", width=width, discriminator_width=2)
    generator = random_variables(Generator(variant))["params"]
    second = random_variables(Discriminator(variant)) if discriminator else None
    return weights.Model(variant, generator, second, METADATA)


def assert_equal(ours, theirs, **tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, y, **{"rtol": 0, "atol": 0} | tolerance)


def rewrite(path, *, change=lambda tensors: None, description=None, remove=None):
    """Changes the tensors or the description of a model file, without `weights`."""
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors)
    if description is not None:
        old = json.loads(metadata[weights.METADATA_KEY])
        metadata = {weights.METADATA_KEY: json.dumps(old | description)}
    if remove:
        old = json.loads(metadata[weights.METADATA_KEY])
        kept = {key: value for key, value in old.items() if key != remove}
        metadata = {weights.METADATA_KEY: json.dumps(kept)}
    safetensors.numpy.save_file(tensors, path, metadata)


@pytest.mark.parametrize("discriminator", [False, True])
def test_float32_model_is_loaded_bit_for_bit(tmp_path, discriminator):
    model = make_model(discriminator=discriminator)
    path = tmp_path / "new" / "model.safetensors"
    weights.save(path, model)
    loaded = weights.load(str(path))
    assert_equal(loaded.generator, model.generator)
    assert (loaded.discriminator is not None) == discriminator
    if discriminator:
        assert_equal(loaded.discriminator, model.discriminator)
    assert loaded.variant == model.variant
    assert loaded.metadata == METADATA
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def make_moments(params, count):
    return {
        "count": np.int32(count),
        "mu": jax.tree.map(lambda x: 2 * x, params),
        "nu": jax.tree.map(np.square, params),
    }


def test_moments_are_loaded_bit_for_bit_for_any_dtype_of_the_networks(tmp_path):
    model = make_model(discriminator=True)
    params = {"generator": model.generator, "discriminator": model.discriminator["params"]}
    moments = {net: make_moments(x, count=n) for n, (net, x) in enumerate(params.items(), 5)}
    model = dataclasses.replace(model, moments=moments)
    weights.save(tmp_path / "model", model, dtype=np.float16)
    loaded = weights.load(tmp_path / "model").moments
    assert jax.tree.structure(loaded) == jax.tree.structure(moments)
    for x, y in zip(jax.tree.leaves(loaded), jax.tree.leaves(moments), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_incomplete_moments_and_moments_without_a_network_are_refused(tmp_path):
    path = tmp_path / "model"
    model = make_model()
    moments = {"generator": make_moments(model.generator, 1)}
    weights.save(path, dataclasses.replace(model, moments=moments))
    rewrite(path, change=lambda tensors: tensors.pop("moments/generator/nu/coarse/encode1/bias"))
    with pytest.raises(UsageError, match="missing: moments/generator/nu/coarse/encode1/bias.$"):
        weights.load(path)
    weights.save(path, dataclasses.replace(model, moments={"discriminator": {"count": 1}}))
    with pytest.raises(UsageError, match="extra: moments/discriminator/count.$"):
        weights.load(path)


def test_float16_halves_the_size_of_both_networks(tmp_path):
    model = make_model(discriminator=True)
    weights.save(tmp_path / "full", model)
    weights.save(tmp_path / "half", model, dtype=np.float16)
    loaded = weights.load(tmp_path / "half")
    # Rounding to 11 significant bits has a relative error of at most 2**-11; for subnormal numbers,
    # the absolute error is at most half of the spacing 2**-24.
    assert_equal(loaded.generator, model.generator, rtol=2**-11, atol=2**-25)
    assert_equal(loaded.discriminator, model.discriminator, rtol=2**-11, atol=2**-25)
    saved = 2 * sum(x.size for x in jax.tree.leaves((model.generator, model.discriminator)))
    sizes = {name: (tmp_path / name).stat().st_size for name in ("full", "half")}
    assert abs(sizes["full"] - sizes["half"] - saved) < 100  # The header is a bit longer.


def test_metadata_cannot_override_the_architecture(tmp_path):
    model = dataclasses.replace(make_model(), metadata={"architecture": "official", "width": 4})
    weights.save(tmp_path / "model", model)
    assert weights.load(tmp_path / "model").variant == model.variant


def test_missing_extra_and_misshapen_tensors_are_all_listed(tmp_path):
    path = tmp_path / "model.safetensors"
    weights.save(path, make_model())

    def change(tensors):
        del tensors["generator/coarse/encode1/bias"], tensors["generator/coarse/encode2/kernel"]
        tensors["generator/coarse/encode9/bias"] = np.zeros(3, np.float32)
        tensors["generator/coarse/encode3/bias"] = np.zeros((1, 8), np.float32)

    rewrite(path, change=change)
    with pytest.raises(UsageError) as error:
        weights.load(path)
    assert str(error.value) == (
        f"{path} holds the weights of another network. missing: generator/coarse/encode1/bias, "
        "generator/coarse/encode2/kernel; extra: generator/coarse/encode9/bias; misshapen: "
        "generator/coarse/encode3/bias (is (1, 8), must be (8,))."
    )


def test_missing_tensor_of_the_discriminator_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    weights.save(path, make_model(discriminator=True))
    rewrite(path, change=lambda tensors: tensors.pop("discriminator/spectral/patch3/u"))
    with pytest.raises(UsageError, match="missing: discriminator/spectral/patch3/u.$"):
        weights.load(path)


def test_error_lists_no_tensors_if_none_is_in_common():
    expected = {f"ours{i}": (1,) for i in range(100)}
    with pytest.raises(UsageError) as error:
        check_tensors({"fc.weight": (1,), "fc.bias": (1,)}, expected, source="x.pth")
    assert str(error.value) == (
        "x.pth holds the weights of another network: none of the 100 expected tensors is among "
        "its 2, such as fc.bias."
    )
    with pytest.raises(UsageError, match="is among its 0.$"):
        check_tensors({}, expected, source="x.pth")


@pytest.mark.parametrize("content", [b"", b"no such thing", b"\xff" * 100, b"PK\x03\x04" * 20])
def test_files_of_other_formats_are_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="model.safetensors is not a model file of deepfill_jax"):
        weights.load(path)


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    weights.save(path, make_model())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="is not a model file of deepfill_jax"):
        weights.load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"deepfill_jax": "{}"}])
def test_weights_of_other_projects_are_refused_with_a_hint_to_convert(tmp_path, metadata):
    path = tmp_path / "others.safetensors"
    safetensors.numpy.save_file({"conv.weight": np.zeros(3, np.float32)}, path, metadata)
    with pytest.raises(UsageError, match="with `python -m deepfill_jax.convert`"):
        weights.load(path)


def test_missing_file_newer_format_and_unknown_architecture_are_refused(tmp_path):
    with pytest.raises(UsageError, match="There is no model file .*absent"):
        weights.load(tmp_path / "absent")
    with pytest.raises(UsageError, match="There is no model file"):
        weights.load(tmp_path)
    path = tmp_path / "model"
    weights.save(path, make_model())
    rewrite(path, description={"format": weights.FORMAT + 1})
    with pytest.raises(UsageError, match="written by a newer version; upgrade deepfill_jax"):
        weights.load(path)
    rewrite(path, description={"format": weights.FORMAT, "architecture": "lama"})
    with pytest.raises(
        UsageError, match="model has architecture 'lama', which must be one of official"
    ):
        weights.load(path)


def test_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    weights.save(path, make_model())
    before = path.read_bytes()

    def interrupted(path, content):
        path.open("wb").write(content[:1000])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            weights.save(path, make_model(width=4))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    weights.save(path, make_model(width=4))
    assert weights.load(path).variant.width == 4


def test_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match="file/model cannot be written: "):
        weights.save(tmp_path / "file" / "model", make_model())
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="folder cannot be written: "):
        weights.save(tmp_path / "folder", make_model())
