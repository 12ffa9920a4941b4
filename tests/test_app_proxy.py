"""Tests of the web UI behind nginx, with the configuration of docs/web-ui.md, in a browser."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from documents import blocks
from server import serve

pytest.importorskip("selenium")
from browser import CHROMIUM, DRIVER, Browser, pixels_of, smooth_picture  # noqa: E402

NGINX = shutil.which("nginx")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER and NGINX), reason="needs nginx and chromium"),
]
NAME, PATH = "images.example.org", "/deepfill"
DOCUMENT = Path(__file__).parents[1] / "docs/web-ui.md"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@contextlib.contextmanager
def nginx(folder, server_url, *changes):
    """Runs nginx with the documented configuration, and yields its port."""
    certificate, key, port = folder / "a.pem", folder / "a.key", free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={NAME}"]
        + ["-days", "1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    (server,) = blocks(DOCUMENT, "nginx")
    for old, new in (
        ("443 ssl", f"127.0.0.1:{port} ssl"),
        (f"/etc/ssl/{NAME}.pem", str(certificate)),
        (f"/etc/ssl/{NAME}.key", str(key)),
        ("http://127.0.0.1:7860", server_url),
        *changes,
    ):
        assert old in server, old
        server = server.replace(old, new)
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in paths)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        # Workers of a process that is root's would not have access to the folder.
        f"{'user root;' if os.getuid() == 0 else ''}"
        f"daemon off; pid {folder}/pid; error_log {folder}/nginx_errors.txt; events {{}}"
        f"http {{ access_log off; {temporary} {server} }}"
    )
    process = subprocess.Popen([NGINX, "-c", str(configuration), "-e", f"{folder}/start.txt"])
    try:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("is_removed", [False, True], ids=["path passed on", "path removed"])
def test_image_is_filled_through_nginx(tmp_path, is_removed):
    with serve(tmp_path, "--allow-host", NAME, "--root-path", PATH) as server:
        change = (f"{server.url};", f"{server.url}/;")
        changes = [change] if is_removed else []
        with nginx(tmp_path, server.url, *changes) as port:
            url = f"https://{NAME}:{port}{PATH}"
            flags = f"--host-resolver-rules=MAP {NAME} 127.0.0.1", "--ignore-certificate-errors"
            browser = Browser(url, tmp_path, "desktop", *flags)
            try:
                picture = smooth_picture()
                browser.open(picture)
                browser.stroke((-60, -40), (60, -40))
                changed = (pixels_of(browser.fill()) != picture).any(axis=2)
                assert 500 < np.count_nonzero(changed) < changed.size / 3
                assert browser.hosts() == {NAME}
                paths = {urlsplit(x).path for x in browser.requests if x.startswith("https")}
                # gradio's page names these two by absolute paths; it works without them.
                paths -= {"/manifest.json", "/favicon.ico"}
                assert all(path.startswith(f"{PATH}/") for path in paths), paths
            finally:
                browser.driver.quit()


@pytest.mark.parametrize("host", ["$http_host", "$proxy_host"])
def test_unknown_proxies_are_told_the_option(tmp_path, host):
    with (
        serve(tmp_path) as server,
        nginx(tmp_path, server.url, ("Host $http_host", f"Host {host}")) as port,
    ):
        headers = {"host": NAME, "origin": f"https://{NAME}"}
        url = f"https://127.0.0.1:{port}{PATH}/api/models"
        answer = httpx.get(url, headers=headers, verify=False)
        assert answer.status_code == (421 if host == "$http_host" else 403)
        assert f"--allow-host {NAME}" in answer.json()["error"]
