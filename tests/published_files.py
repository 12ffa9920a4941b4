"""A stand-in for published weights, its server and an empty cache, for tests of downloads.

Test files load the fixtures with `pytest_plugins`.
"""

import dataclasses
import hashlib

import pytest
import references
import torch_files
import weights_server

from deepfill_jax import published
from deepfill_jax.convert import mmagic
from deepfill_jax.models import make_variant
from deepfill_jax.published import addresses, download

NARROW = make_variant("mmagic", width=2, discriminator_width=2)
NAME = "mmagic/places"


@pytest.fixture(scope="session")
def published_file():
    """A narrow network in the format of the published files."""
    table = mmagic.make_table(discriminator=True)
    tensors = references.narrow_tensors("mmagic", table, NARROW)
    pickled, arrays = torch_files.program({"meta": {"iter": 7}, "state_dict": tensors})
    return torch_files.legacy(pickled, arrays)


@pytest.fixture
def file_name(published_file):
    return f"weights-{hashlib.sha256(published_file).hexdigest()[:8]}.pth"


@pytest.fixture
def server(published_file, file_name):
    with weights_server.serving({f"/{file_name}": published_file}) as server:
        yield server


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Returns the folder of models in an empty cache, which tests use instead of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'cache'}")
    monkeypatch.setattr(download, "PAUSE", 0.01)
    return tmp_path / "cache" / "deepfill_jax" / "models"


@pytest.fixture
def entry(server, file_name, monkeypatch):
    """Makes the stand-in the known entry, which the mirror serves."""
    url = f"https://published.example/{file_name}"
    entry = dataclasses.replace(published.ENTRIES[NAME], url=url)
    monkeypatch.setitem(published.ENTRIES, NAME, entry)
    monkeypatch.setenv(addresses.MIRROR, f"{server.url}/")
    return entry


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
