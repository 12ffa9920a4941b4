"""Tests that every reader refuses model files with invalid metadata or weights."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from made import make_model

from deepfill_jax import weights
from deepfill_jax.convert import sources
from deepfill_jax.errors import UsageError

KERNEL = "generator/coarse/encode1/kernel"


@pytest.fixture
def rewrite(tmp_path):
    """Writes a model file whose metadata text or tensors are changed by a function."""
    path = tmp_path / "a.safetensors"
    weights.save(path, make_model("official"))

    def write(*, text=lambda entries: json.dumps(entries), tensors=lambda found: None):
        with safetensors.safe_open(path, "numpy") as file:
            entries = json.loads(file.metadata()[weights.METADATA_KEY])
            found = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
        tensors(found)
        safetensors.numpy.save_file(found, path, {weights.METADATA_KEY: text(entries)})
        return path

    return write


def refused(path, message):
    for read in (weights.load, sources.read):
        with pytest.raises(UsageError, match=message) as error:
            read(path)
        assert "a.safetensors" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[]", "null", "5", '"x"', "{", ""])
def test_metadata_that_is_not_an_object_is_refused(rewrite, text):
    refused(rewrite(text=lambda entries: text), "The metadata of .* is not (a JSON object|JSON)")


@pytest.mark.parametrize(
    "name, values",
    {
        "format": ["1", None, 1.0, True],
        "architecture": [["official"], None, 5, "lama", {}],
        "width": ["2", 2.0, None, True, 3, 0, -2, 10**9],
        "discriminator_width": ["x", 0, None, 1.5],
        "guided": ["no", 1, []],
        "image_size": ["64", 0, -8, 100, 64.5, True, [256]],
        "replace_detail": ["yes", 1],
        "license": [5, ["MIT"]],
        "parent": [5],
    }.items(),
)
def test_invalid_entries_are_named(rewrite, name, values):
    for value in values:
        path = rewrite(text=lambda entries, x=value: json.dumps(entries | {name: x}))
        refused(path, f"has {name} .*, which must be ")


@pytest.mark.parametrize("name", ["format", "architecture", "width", "discriminator_width"])
def test_missing_entries_are_named(rewrite, name):
    path = rewrite(text=lambda entries: json.dumps({k: x for k, x in entries.items() if k != name}))
    refused(path, f"has no {name}; convert weights of other projects with ")


def test_optional_entries_may_be_null(rewrite):
    path = rewrite(text=lambda entries: json.dumps(entries | {"image_size": None, "license": None}))
    assert "image_size" not in weights.load(path).metadata


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_are_named(rewrite, value):
    path = rewrite(tensors=lambda found: found[KERNEL].__setitem__((0, 0, 0, 0), value))
    refused(path, f"damaged: tensors that hold NaN or infinity: {KERNEL}; take an earlier")


def test_integer_weights_are_refused(rewrite):
    path = rewrite(tensors=lambda found: found.update({KERNEL: found[KERNEL].astype(np.int8)}))
    refused(path, f"tensors that are not floats: {KERNEL}")
