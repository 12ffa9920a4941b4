"""What is distributed: metadata, licenses, model files, model cards and the documentation site."""

import hashlib
import json
from pathlib import Path

import made
import pytest
import safetensors
import safetensors.numpy

from deepfill_jax import trained, weights

ROOT = Path(__file__).parents[1]


MODEL_LICENSE = "LicenseRef-deepfill-jax-models-research-only"
# SHA-256 of everything behind the header: the tensors of version 0.1.
TENSORS = {"faces": "b21b19308c571855", "guided": "181c32bc29a2e3a0"}


def header_end(content):
    return 8 + int.from_bytes(content[:8], "little")


def entries(path):
    with safetensors.safe_open(path, "numpy") as file:
        return file.metadata()


def save_model(path, **metadata):
    made_model = made.make_model("official")
    weights.save(path, weights.Model(made_model.variant, made_model.generator, metadata=metadata))


# Model files


def test_model_file_names_its_tensor_layout(tmp_path):
    save_model(tmp_path / "a.safetensors")
    found = entries(tmp_path / "a.safetensors")
    assert found["format"] == "flax" and json.loads(found["deepfill_jax"])["format"] == 1


def test_same_model_is_saved_as_the_same_bytes(tmp_path):
    for name in "abcdefgh":  # safetensors orders two entries at random.
        save_model(tmp_path / name, license="CC0 1.0")
    assert len({(tmp_path / name).read_bytes() for name in "abcdefgh"}) == 1


def test_file_without_format_is_read(tmp_path):
    path = tmp_path / "old.safetensors"
    save_model(path, licence="CC0 1.0")
    description = entries(path)["deepfill_jax"]
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, path, {"deepfill_jax": description})
    assert "format" not in entries(path)
    assert weights.load(path).metadata == {"license": "CC0 1.0"}


def test_new_metadata_leaves_tensors_alone(tmp_path):
    save_model(tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    description = json.loads(entries(tmp_path / "a.safetensors")["deepfill_jax"])
    after = weights.with_metadata(before, description | {"license": "x" * 13})
    assert after[header_end(after) :] == before[header_end(before) :]
    assert header_end(after) % 8 == 0
    (tmp_path / "b.safetensors").write_bytes(after)
    assert weights.load(tmp_path / "b.safetensors").metadata == {"license": "x" * 13}


@pytest.mark.parametrize("name", trained.names())
def test_bundled_file_has_todays_metadata(name):
    content = trained.find(name).read_bytes()
    found = entries(trained.find(name))
    assert found["format"] == "flax"
    description = json.loads(found["deepfill_jax"])
    assert description["license"].startswith("Research use only") and "licence" not in description
    assert description.get("parent") == (None if name == "faces" else "faces")
    if name in TENSORS:
        tensors = content[header_end(content) :]
        assert hashlib.sha256(tensors).hexdigest()[:16] == TENSORS[name]
