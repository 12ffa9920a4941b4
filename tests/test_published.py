"""Published weights by name and address: cache, conversion, use in all commands."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
import references
import torch_files
from published_files import NAME, NARROW, files_in

from deepfill_jax import flags, published, sharding, trained
from deepfill_jax.app.registry import available
from deepfill_jax.convert import __main__ as convert
from deepfill_jax.convert import mmagic, models, releases, sources
from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import methods
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.published import addresses
from deepfill_jax.train import warm_start

pytest_plugins = ["published_files"]
pytestmark = pytest.mark.usefixtures("cache")


def test_known_entries_have_urls_with_checksums():
    for entry in published.ENTRIES.values():
        assert entry.url.startswith("https://") and entry.url.endswith(".pth")
        name, digits = entry.name_and_digits
        assert releases.MMAGIC[digits] == name
    assert addresses.resolve("mmagic/celeba").sha256 == "c96e5f12"
    assert addresses.resolve("mmagic/places").sha256 == "10d15793"


def test_suffixes_are_those_that_can_be_read():
    assert {*addresses.SUFFIXES} == {*sources.TORCH_SUFFIXES, trained.SUFFIX}


def test_first_use_downloads_converts_and_prints_the_license_once(entry, server, cache, capsys):
    model = sources.read(NAME).model
    assert model.variant == NARROW and model.metadata["step"] == 7
    told = capsys.readouterr().err
    assert told.count(f"License of {NAME}: Apache-2.0") == 1
    assert f"Downloading {NAME} from {server.url}/weights-" in told and "as stated" in told
    stem = entry.url.rpartition("/")[2].removesuffix(".pth")
    folder = cache / "mmagic%2Fplaces"
    assert files_in(folder) == [f"{stem}.pth", f"{stem}.safetensors"]
    again = sources.read(NAME)
    assert [path.suffix for path in again.files] == [".safetensors"]
    jax.tree.map(np.testing.assert_array_equal, again.model.generator, model.generator)
    assert capsys.readouterr().err == "" and len(server.requests) == 1
    assert Inpainter.load(NAME).working_size == 256


def test_damaged_conversion_is_renewed(entry, server, cache):
    sources.read(NAME)
    (converted,) = cache.rglob("*.safetensors")
    os.utime(converted, (0, 0))  # Older than the download.
    converted.write_bytes(b"")
    os.utime(converted, (0, 0))
    assert sources.read(NAME).model.variant == NARROW


def test_read_only_cache_is_used(entry, cache, monkeypatch):
    published.fetch(NAME)
    monkeypatch.setattr(sources.weights, "save", refuse)
    assert sources.read(NAME).model.variant == NARROW
    assert [path.suffix for path in cache.rglob("*.*") if path.is_file()].count(".pth") == 1


def refuse(*_, **__):
    raise UsageError("cannot be written")


def test_other_weights_are_named_with_the_way_out(server, cache):
    server.files["/resnet.pth"] = torch_files.zipped(
        *torch_files.program({"fc": torch_files.seeded((3,))})
    )
    with pytest.raises(UsageError, match="another network: .* `deepfill models remove http://"):
        sources.read(f"{server.url}/resnet.pth")
    models.main(["remove", f"{server.url}/resnet.pth"])
    assert published.cached() == {}


def test_offline_uses_the_cache_only(entry, server, monkeypatch, capsys, tmp_path):
    command = [NAME, "--output", f"{tmp_path / 'a.safetensors'}", "--offline"]
    monkeypatch.setenv(published.OFFLINE, "0")  # Restored afterwards, whatever the flag sets.
    with pytest.raises(SystemExit):
        convert.main(command)
    told = capsys.readouterr().err
    assert f"{NAME} is not in the cache" in told and f"deepfill models download {NAME}" in told
    assert not server.requests
    monkeypatch.setenv(published.OFFLINE, "0")
    published.fetch(NAME)
    convert.main(command)
    assert (tmp_path / "a.safetensors").is_file() and len(server.requests) == 1


@pytest.mark.parametrize(
    "source, message",
    [
        ("http://host.example/a.pth", "must begin with https:// or hf://"),
        ("ftp://host.example/a.pth", "must begin with https:// or hf://"),
        ("file:///tmp/a.pth", "must begin with https:// or hf://"),
        ("https://host.example/page", "does not name a file of weights"),
        ("https://host.example/a/..", "does not name a file of weights"),
        ("https:///a.pth", "does not name a file of weights"),
        ("https://[host/a.pth", "is not a valid URL"),
        ("https://host.example/a.pth#md5=0123", "is not #sha256= and 8 to 64 digits"),
        ("hf://owner/a.pth", "is not of the form hf://OWNER/REPO/FILE"),
        ("hf://owner/repo/../../a.pth", "is not|does not"),
        ("tf1/places", "release_places2_256 by the link(.|\n)*--model release_places2_256"),
        ("mmagic/place", "There is no model file mmagic/place; .* mmagic/places"),
    ],
)
def test_unusable_addresses_are_refused(source, message, server):
    with pytest.raises(UsageError, match=message):
        sources.read(source)
    assert not server.requests


def test_without_home_folder_local_files_are_read(tmp_path, monkeypatch, published_file):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    (tmp_path / "x.pth").write_bytes(published_file)
    assert sources.read(tmp_path / "x.pth").model.variant == NARROW
    assert sources.local_names() == trained.names()
    with pytest.raises(UsageError, match="There is no cache folder .* set XDG_CACHE_HOME"):
        published.fetch(NAME)


def test_instructions_for_files_without_url_are_two_lines():
    assert {x.folder for x in published.BY_HAND.values()} == releases.TF1.keys()
    for name, by_hand in published.BY_HAND.items():
        assert len(by_hand.instructions(name).splitlines()) == 2


def test_models_command_lists_downloads_and_removes(entry, server, cache, capsys):
    models.main(["download", NAME])
    assert capsys.readouterr().out.strip().endswith(".safetensors")
    models.main([])
    lines = capsys.readouterr().out.splitlines()
    states = {line.split()[0]: line for line in lines}
    assert {"scenes", "faces", "guided", NAME, "mmagic/celeba", "tf1/places"} < states.keys()
    assert " cached " in states[NAME] and " bundled " in states["scenes"]
    assert " known " in states["mmagic/celeba"] and "41 MB" in states["mmagic/celeba"]
    assert " by hand " in states["tf1/places"] and "CC BY-NC" in states["tf1/places"]
    assert sources.local_names() == [*trained.names(), NAME]
    models.main(["remove", NAME])
    assert published.cached() == {} and files_in(cache) == ["mmagic%2Fplaces.lock"]
    with pytest.raises(SystemExit):
        models.main(["remove", NAME])
    assert f"{NAME} is not in the cache; `deepfill models` lists" in capsys.readouterr().err


def test_generator_of_two_is_chosen_in_an_address(server, cache):
    tensors = references.narrow_tensors("mmagic", mmagic.make_table(discriminator=False), NARROW)
    averages = {name.replace("generator.", "generator_ema."): 2 * x for name, x in tensors.items()}
    content = torch_files.program({"state_dict": {**tensors, **averages}})
    server.files["/two.pth"] = torch_files.zipped(*content)
    url = f"{server.url}/two.pth"
    with pytest.raises(UsageError, match="holds two generators"):
        sources.read(url)
    plain, average = (sources.read(f"{url}@{name}").model for name in sources.GENERATORS)
    twice = jax.tree.map(lambda x: 2 * x, plain.generator)
    jax.tree.map(np.testing.assert_array_equal, twice, average.generator)


def test_names_work_in_evaluation_and_training(entry, file_name):
    method = methods.load_network(NAME, sharding.make_mesh())
    assert method.name == file_name.removesuffix(".pth")
    model = warm_start.read(NAME, NARROW)
    assert model.discriminator is not None


def test_offline_flag_of_evaluation_sets_the_variable(monkeypatch):
    monkeypatch.setenv(published.OFFLINE, "0")
    flags.parse("evaluate", ["--config=places", f"--model={NAME}", "--offline"])
    assert os.environ[published.OFFLINE] == "1"
    flags.FLAGS.offline = False


def test_web_ui_offers_cached_weights(entry):
    assert list(available([])) == trained.names()
    published.fetch(NAME)
    assert list(available([])) == [*trained.names(), "places"]
