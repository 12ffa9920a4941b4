"""Remote storage is refused wherever a path of this machine is needed."""

import os

import pytest

from deepfill_jax import config, flags
from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.data import sources
from deepfill_jax.doctor import machine
from deepfill_jax.doctor.case import Case
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import scoring
from deepfill_jax.local_paths import require_local
from deepfill_jax.train import loop

MESSAGE = "is remote storage, .*mount the bucket, for example with gcsfuse"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """The current folder; it must stay empty."""
    monkeypatch.chdir(tmp_path)
    yield
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("address", ["gs://b/x", "s3://b", "abfs://b/x", "gs:/b/x", "S3://b"])
def test_addresses_are_refused(address):
    with pytest.raises(UsageError, match=f"^name={address} {MESSAGE}"):
        require_local("name", address)


@pytest.mark.parametrize("path", ["", "/a/b", "a", "a:b", "C:/x", "./gs://b", "~/x", "a b:/c"])
def test_paths_are_not_refused(path):
    require_local("name", path)


@pytest.mark.parametrize("name", ["workdir", "output", "report", "predictions", "model"])
@pytest.mark.parametrize("command", ["train", "evaluate", "doctor"])
def test_flags_are_checked(name, command):
    if command != "evaluate" and name != "workdir":
        pytest.skip("The command has no such flag.")
    try:
        with pytest.raises(UsageError, match=f"^--{name}=gs://b/x {MESSAGE}"):
            flags.parse(command, ["--config=smoke", f"--{name}=gs://b/x"])
    finally:
        flags.FLAGS[name].unparse()


def test_run_of_an_evaluation_without_a_config_is_checked():
    with pytest.raises(UsageError, match=f"^--workdir=s3://b/x {MESSAGE}"):
        flags.parse("evaluate", ["--workdir=s3://b/x"])


@pytest.mark.parametrize(
    "key, value",
    [
        ("data.source", "folder:gs://b/x"),
        ("data.val_source", "flist:s3://b/x"),
        ("data.edges", "folder:gs://b/x"),
        ("data.val_edges", "folder:gs://b/x"),
        ("data.source", "gs://b/x"),
        ("masks.folder", "gs://b/x"),
        ("init_from", "gs://b/run"),
    ],
)
def test_config_keys_are_checked(key, value):
    values = config.load("smoke")
    values.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=f"^config.{key}=.*{MESSAGE}"):
        config.check(values)


@pytest.mark.parametrize("source", ["https://example.org/a.pth", "hf://a/b/c.safetensors", "faces"])
def test_addresses_of_weights_are_not_refused(source):
    values = config.load("smoke")
    values.init_from = source
    values.data.source = "tfds:places365_small:train"
    config.check(values)


def test_functions_check_their_paths(tmp_path):
    values = config.load("smoke")
    with pytest.raises(UsageError, match=MESSAGE):
        loop.train(values, "gs://b/x")
    with pytest.raises(UsageError, match=MESSAGE):
        scoring.score(lambda batch: batch, [], output="gs://b/x")
    with pytest.raises(UsageError, match=MESSAGE):
        sources.open_source("folder:gs://b/x")
    with pytest.raises(UsageError, match=MESSAGE):
        list(machine.workdir(Case(values, tmp_path.__class__("gs://b/x"))))
    with pytest.raises(UsageError, match=MESSAGE), atomic_write(tmp_path.__class__("gs://b/x.png")):
        pass
