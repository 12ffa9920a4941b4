"""Published weights by name and URL: download, checks, cache and its command."""

import contextlib
import dataclasses
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import references
import torch_files
import weights_server

from deepfill_jax import flags, published, sharding, trained
from deepfill_jax.app.registry import available
from deepfill_jax.convert import __main__ as convert
from deepfill_jax.convert import mmagic, models, releases, sources
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.evaluate import methods
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.models import make_variant
from deepfill_jax.published import addresses, download
from deepfill_jax.train import warm_start

NARROW = make_variant("mmagic", width=2, discriminator_width=2)
NAME = "mmagic/places"


@pytest.fixture(scope="module")
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


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
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


def test_interrupted_download_resumes(server, file_name, published_file, cache):
    server.cuts = [100_000, 50_000]
    path = published.fetch(f"{server.url}/{file_name}")
    assert path.read_bytes() == published_file
    first, *offsets = [range for _, range in server.requests]
    lost = [sent - int(x[6:-1]) for sent, x in zip((100_000, 150_000), offsets, strict=True)]
    assert first is None and all(0 <= x < 3 * download.BLOCK for x in lost)
    assert files_in(path.parent) == [path.name]


def test_interrupted_download_starts_again_on_servers_without_ranges(
    server, file_name, published_file
):
    server.cuts, server.ranges = [100_000], False
    assert published.fetch(f"{server.url}/{file_name}").read_bytes() == published_file


def test_truncated_downloads_are_given_up_and_resumed_later(
    server, file_name, published_file, cache
):
    server.cuts = [100_000, 50_000, 20_000]
    url = f"{server.url}/{file_name}"
    with pytest.raises(RunError, match=r"failed 3 times \(it ended after 0.\d MB\); run the comm"):
        published.fetch(url)
    assert published.cached() == {}
    assert published.fetch(url).read_bytes() == published_file
    assert int(server.requests[-1][1][6:-1]) > 100_000


@pytest.mark.parametrize("left", [b"of another file", None], ids=["other", "longer"])
def test_leftover_of_another_file_is_replaced(server, file_name, published_file, cache, left):
    url = f"{server.url}/{file_name}"
    server.cuts = [10, 10, 10]
    with pytest.raises(RunError):
        published.fetch(url)
    (part,) = cache.rglob("*.part")
    part.write_bytes(left or published_file + b"more")
    assert published.fetch(url).read_bytes() == published_file


def test_leftover_without_checksum_is_not_resumed(server, published_file, cache):
    server.files["/plain.pth"] = published_file
    server.cuts = [100_000, 1, 1]
    with pytest.raises(RunError):
        published.fetch(f"{server.url}/plain.pth")
    published.fetch(f"{server.url}/plain.pth")
    assert server.requests[-1][1] is None


def test_wrong_checksum_is_refused_before_reading(server, published_file, cache, monkeypatch):
    digest = hashlib.sha256(published_file).hexdigest()
    server.files["/weights-00000000.pth"] = published_file
    url = f"{server.url}/weights-00000000.pth"
    with pytest.raises(UsageError, match=f"another SHA-256 than stated: {digest} does") as error:
        sources.read(url)
    assert f"{url}#sha256={digest}" in str(error.value)
    assert [name for name in files_in(cache) if not name.endswith(".lock")] == []
    published.fetch(f"{url}#sha256={digest}")
    with pytest.raises(UsageError, match="another SHA-256"):
        published.fetch(f"{url}#sha256={digest[:-1]}{'0' if digest[-1] != '0' else '1'}")


def test_known_entry_with_wrong_checksum_offers_no_other(entry, server, file_name):
    server.files[f"/{file_name}"] = b"another file"
    with pytest.raises(UsageError, match="was deleted; try again.$"):
        published.fetch(NAME)


@pytest.mark.parametrize("status", [404, 403, 410, 302, 204])
def test_missing_file_is_reported_without_retries(server, file_name, status):
    server.statuses = [status]
    with pytest.raises(UsageError, match=f"cannot be downloaded: the server answers {status} "):
        published.fetch(f"{server.url}/{file_name}")
    assert len(server.requests) == 1


def test_busy_server_is_asked_again(server, file_name):
    server.statuses = [503, 429]
    assert published.fetch(f"{server.url}/{file_name}").is_file()
    assert len(server.requests) == 3


def test_redirects_are_followed(server, file_name, published_file):
    server.redirects = {"/latest.pth": f"/{file_name}"}
    assert published.fetch(f"{server.url}/latest.pth").read_bytes() == published_file


def test_endless_redirects_end(server):
    server.redirects = {"/a.pth": "/a.pth"}
    with pytest.raises(RunError, match="Exceeded 30 redirects"):
        published.fetch(f"{server.url}/a.pth")


def test_redirects_from_https_to_http_are_refused(tmp_path, monkeypatch):
    response = download.requests.Response()
    response.status_code, response.headers["Location"] = 302, "http://127.0.0.1/a.pth"
    response.raw, response.url = io.BytesIO(), "https://host/a.pth"
    send = lambda self, request, **_: setattr(response, "request", request) or response  # noqa: E731
    monkeypatch.setattr(download.requests.adapters.HTTPAdapter, "send", send)
    with pytest.raises(UsageError, match="redirects to an unencrypted address"):
        published.fetch("https://host/a.pth")


def test_web_page_is_not_taken_for_weights(server, file_name):
    server.type = "text/html; charset=utf-8"
    with pytest.raises(UsageError, match="is a web page, not a file"):
        published.fetch(f"{server.url}/{file_name}")


def test_other_weights_are_named_with_the_way_out(server, cache):
    server.files["/resnet.pth"] = torch_files.zipped(
        *torch_files.program({"fc": torch_files.seeded((3,))})
    )
    with pytest.raises(UsageError, match="another network: .* `deepfill models remove http://"):
        sources.read(f"{server.url}/resnet.pth")
    models.main(["remove", f"{server.url}/resnet.pth"])
    assert published.cached() == {}


def test_no_network_is_a_clear_error():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a.pth"
        with pytest.raises(RunError, match=r"a.pth cannot be reached \(Connection refused\)\. Che"):
            published.fetch(url)


def test_unknown_host_is_a_clear_error(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.delenv(addresses.MIRROR, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(RunError, match=f"{NAME} cannot be downloaded, .* name resolution"):
        published.fetch(NAME)


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


def test_one_of_two_processes_downloads_and_the_other_waits(server, file_name, cache):
    server.pause = 0.02
    code = f"from deepfill_jax import published; published.fetch({server.url + '/' + file_name!r})"
    start = [sys.executable, "-c", code]
    both = [subprocess.Popen(start, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = sorted(process.communicate(timeout=60)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert told[0].startswith("Downloading http") and told[1].startswith("Waiting for another")
    assert len(server.requests) == 1


def test_killed_download_is_resumed_by_the_next_process(server, file_name, published_file, cache):
    server.pause = 0.5
    url = f"{server.url}/{file_name}"
    code = f"from deepfill_jax import published; published.fetch({url!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not any(x.stat().st_size for x in cache.rglob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.pause = 0
    assert published.fetch(url).read_bytes() == published_file
    assert server.requests[-1][1].startswith("bytes=")


def test_progress_is_shown_on_a_terminal(server, file_name, published_file):
    import pty

    server.pause = 0.05
    code = f"from deepfill_jax import published; published.fetch({server.url + '/' + file_name!r})"
    controller, terminal = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=terminal)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):
        while block := os.read(controller, 2**16):
            shown += block
    os.close(controller)
    assert process.wait() == 0
    assert f"/{len(published_file) / 1000:.1f} kB" in shown.decode()


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


def test_long_url_is_a_clear_error(server):
    with pytest.raises(UsageError, match="File name too long"):
        published.fetch(f"{server.url}/{'a' * 250}.pth")


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


def test_hugging_face_files_are_downloaded(published_file, cache):
    pytest.importorskip("huggingface_hub")
    path = "/owner/repo/resolve/main/sub/weights.pth"

    def fetch(source, offline=0):
        code = f"from deepfill_jax import published; print(published.fetch({source!r}))"
        environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": f"{offline}"}
        options = {"capture_output": True, "text": True, "env": environment, "timeout": 60}
        return subprocess.run([sys.executable, "-c", code], **options)

    with weights_server.serving({path: published_file}) as server:
        server.headers = {
            "ETag": f'"{hashlib.sha256(published_file).hexdigest()}"',
            "X-Repo-Commit": "0" * 40,
        }
        ran = fetch("hf://owner/repo/sub/weights.pth")
        assert ran.returncode == 0, ran.stderr
        assert Path(ran.stdout.strip()).read_bytes() == published_file
        assert files_in(cache / "hf%3A%2F%2Fowner%2Frepo%2Fsub%2Fweights.pth") == ["weights.pth"]
        ran = fetch("hf://owner/repo/absent.pth")
        assert "UsageError: hf://owner/repo/absent.pth cannot be downloaded" in ran.stderr
    assert sources.read("hf://owner/repo/sub/weights.pth").model.variant == NARROW
    ran = fetch("hf://owner/repo/other.pth", offline=1)
    assert "RunError: hf://owner/repo/other.pth cannot be downloaded" in ran.stderr
    assert "offline mode is enabled" in ran.stderr


def test_missing_library_of_hugging_face_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"needs huggingface_hub: pip install .*\[hub\]"):
        published.fetch("hf://owner/repo/weights.pth")


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
