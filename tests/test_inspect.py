"""Descriptions of model files and other weights."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import references
from made import make_model

from deepfill_jax import weights
from deepfill_jax.convert import tensorflow1
from deepfill_jax.convert.inspect import inspect, main
from deepfill_jax.models import make_variant
from deepfill_jax.tensors import flatten

METADATA = {
    "step": 12_000,
    "recipe": {"l1_whole": 1.0, "concat_real_fake": True},
    "data": "folder:data/train",
    "license": "CC0 1.0",
}


@pytest.fixture
def path(tmp_path):
    model = make_model("official")
    path = tmp_path / "model.safetensors"
    weights.save(
        path, weights.Model(model.variant, model.generator, metadata=METADATA), dtype="float16"
    )
    return path


def test_inspect_describes_a_model_file(path):
    count = sum(x.size for x in flatten(weights.load(path).generator).values())
    assert inspect(path) == {
        "architecture": "official",
        "width": 2,
        "discriminator_width": 1,
        "guided": False,
        "parameters": {"generator": count, "discriminator": None},
        "adam_updates": None,
        "dtype": "float16",
        **METADATA,
        "files": {
            "model.safetensors": {
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        },
    }


def test_command_prints_lines_or_json(path, capsys):
    main([str(path)])
    lines = capsys.readouterr().out.splitlines()
    description = dict(line.split(maxsplit=1) for line in lines)
    assert description["architecture"] == "official"
    assert description["parameters.discriminator"] == "none"
    assert description["recipe.concat_real_fake"] == "True"
    assert description["step"] == "12,000"
    assert description["license"] == "CC0 1.0"
    main([str(path), "--json"])
    assert json.loads(capsys.readouterr().out) == inspect(path)


def test_missing_files_are_refused(tmp_path, capsys):
    for name in ("absent.safetensors", "absent.pth", "absent"):
        with pytest.raises(SystemExit) as end:
            main([str(tmp_path / name)])
        assert end.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_inspect_describes_a_tf1_checkpoint_without_writing_files(tmp_path):
    tf = pytest.importorskip("tensorflow")
    variant = make_variant("official", width=2, discriminator_width=2)
    table = tensorflow1.make_table(discriminator=True)
    tensors = references.narrow_tensors("tf", table, variant) | {"global_step": np.int32(8)}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "snap-8"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    description = inspect(Path(tmp_path))
    assert description["width"] == 2 and description["step"] == 8
    assert description["release"] is None
    assert set(description["files"]) == {"snap-8.index", "snap-8.data-00000-of-00001"}
    assert len(list(tmp_path.iterdir())) == 2
