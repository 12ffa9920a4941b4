"""Tests of passwords, allowed hosts, proxies and paths, and of limits of uploads."""

import asyncio
import os
from pathlib import Path

import pytest
from app_fixtures import LOCAL, PICTURE, SCOPE, ask, file, guarded_client, make_request, refused
from fastapi.testclient import TestClient

from deepfill_jax.app import exchange, hosts
from deepfill_jax.app.guard import Login
from deepfill_jax.app.service import Service
from deepfill_jax.app.web import make_app

pytest_plugins = ["app_fixtures"]


def test_password_protects_web_ui_and_api(app):
    client = guarded_client(app, login=Login("me", "sécret: of mine"))
    for path in ("/", "/api/models", "/openapi.json", "/assets/x.js", "/gradio_api/upload", "/no"):
        answer = client.get(path)
        refused(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Basic ")
    assert ask(client, make_request()[2]).status_code == 401
    for wrong in (("me", "secret"), ("you", "sécret: of mine"), ("me", "")):
        assert client.get("/api/models", auth=wrong).status_code == 401
    for header in ("Basic", "Basic ???", "Bearer bWU6", "Basic \xff"):
        headers = {"authorization": header.encode("latin-1")}
        assert client.get("/api/models", headers=headers).status_code == 401
    encoded = {"authorization": b"Basic bWU6c8OpY3JldDogb2YgbWluZQ=="}
    assert client.get("/api/models", headers=encoded).status_code == 200


def test_requests_from_other_origins_and_hosts_are_refused(client):
    assert client.get("/api/models", headers={"origin": LOCAL}).status_code == 200
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null", "http://127.0.0.1.evil"):
        assert refused(client.get("/api/models", headers={"origin": origin}), 403)
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert refused(client.get("/api/models", headers={"host": host}), 421)


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"host": "["}, 421),
        ({"host": "127.0.0.1:port"}, 421),
        ({"host": "127.0.0.1:99999999"}, 421),
        ({"origin": "http://["}, 403),
        ({"origin": "http://[::1]:x"}, 403),
        ({"origin": "\xff"}, 403),
    ],
)
def test_malformed_hosts_and_origins_are_refused(app, headers, status):
    client = guarded_client(app, hosts=("127.0.0.1",), login=Login("me", "secret"))
    headers = {name: value.encode("latin-1") for name, value in headers.items()}
    assert "--allow-host" not in refused(client.get("/api/models", headers=headers), status)


def test_proxies_are_allowed_by_name(app):
    client = guarded_client(app, hosts=("127.0.0.1",))
    proxied = {"host": "images.example", "origin": "https://images.example"}
    assert refused(client.get("/api/models", headers=proxied), 421) == (
        "The Host header 'images.example' does not name this server. If images.example is a "
        "proxy, start the server with --allow-host images.example."
    )
    del proxied["host"]  # A proxy that does not pass the header on.
    assert refused(client.get("/api/models", headers=proxied), 403) == (
        "Requests from another origin, 'https://images.example', are not allowed. If "
        "images.example is a proxy, start the server with --allow-host images.example."
    )
    client = guarded_client(app, hosts=("127.0.0.1",), proxies=("images.example",))
    for headers in (proxied, proxied | {"host": "images.example:443"}, {}):
        assert client.get("/api/models", headers=headers).status_code == 200
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        assert client.get("/api/models", headers=headers).status_code in (403, 421)


def test_web_ui_and_api_work_below_a_path(model, tmp_path, app, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ["GRADIO_TEMP_DIR"])  # Each application's own.
    app = make_app(Service({"tiny": model}), tmp_path, root_path="/deepfill")
    with TestClient(app, base_url=LOCAL) as client:
        for prefix in ("/deepfill", ""):  # Proxies pass the path on, or remove it.
            assert client.get(f"{prefix}/api/models").json()[0]["name"] == "tiny"
            page = client.get(f"{prefix}/").text
            assert f'"root":"{LOCAL}/deepfill"' in page
            config = client.get(f"{prefix}/config").json()
            assert config["root"] == f"{LOCAL}/deepfill"
            upload = client.post(
                f"{prefix}/gradio_api/upload", files={"files": ("a.png", file(PICTURE))}
            )
            assert upload.status_code == 200
        assert client.get("/deepfill").status_code == 200
        assert client.get("/deepfillx/api/models").status_code == 404
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/deepfill"}]


def test_names_below_a_domain_are_matched():
    patterns = ("one.example", ".two.example")
    for name in ("one.example", "two.example", "a.two.example", "b.a.two.example"):
        assert hosts.matches(name, patterns)
    for name in ("a.one.example", "atwo.example", "two.example.evil", "", ".", None):
        assert not hosts.matches(name, patterns)


def test_health_needs_neither_login_nor_host(app):
    client = guarded_client(app, login=Login("me", "secret"), hosts=("127.0.0.1",))
    for headers in ({"host": "10.0.0.7:7860"}, {"host": "["}):
        assert client.get("/health", headers=headers).json() == {"status": "ok"}


def test_errors_of_gradio_and_of_faults_are_json(client, app, monkeypatch):
    assert refused(client.get("/static/none"), 404) == "Not Found."
    assert refused(client.delete("/gradio_api/upload"), 405) == "Method Not Allowed."
    assert refused(client.post("/gradio_api/queue/join", json=[]), 422).startswith("Unprocessable")
    monkeypatch.setattr(app.service, "purpose", None)
    faulty = TestClient(app, base_url=LOCAL, raise_server_exceptions=False)
    assert refused(faulty.get("/api/models"), 500) == (
        "The server failed; its terminal shows the error."
    )


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=/proc/self/environ",
        f"/gradio_api/file={Path(__file__)}",
        f"/gradio_api/file=/{Path(__file__)}",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=http://127.0.0.1/api/models",
        "/gradio_api/proxy=http://127.0.0.1/api/models",
        "/gradio_api/file/etc/passwd",
        "/static/../../../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets//etc/passwd",
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
        "/gradio_api/component_server",
        "/monitoring",
        "/docs",
    ],
)
def test_files_of_the_machine_and_unused_routes_are_not_served(client, path):
    answer = client.get(path)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text and "import " not in answer.text


def test_slow_upload_returns_408(app, monkeypatch):
    monkeypatch.setattr(exchange, "START_SECONDS", 0.05)
    sent = []

    async def receive():
        await asyncio.sleep(10)

    async def send(message):
        sent.append(message)

    asyncio.run(app(SCOPE, receive, send))
    assert sent[0]["status"] == 408


def test_urls_and_local_paths_of_clients_are_refused(called, monkeypatch):
    for path in ("http://127.0.0.1:9/a.png", "https://example.com/a.png", "/etc/passwd"):
        named = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
        error = called("open_picture", named, session="thief")
        assert isinstance(error, str)
        if path.startswith("http"):
            assert "not fetched" in error
