"""Downloads of weights: resuming, checksums, answers of servers, several processes."""

import contextlib
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import weights_server
from published_files import NAME, NARROW, files_in

from deepfill_jax import published
from deepfill_jax.convert import sources
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.published import addresses, download

pytest_plugins = ["published_files"]
pytestmark = pytest.mark.usefixtures("cache")


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


def test_long_url_is_a_clear_error(server):
    with pytest.raises(UsageError, match="File name too long"):
        published.fetch(f"{server.url}/{'a' * 250}.pth")


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
