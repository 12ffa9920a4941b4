"""Tests of the command `deepfill app`."""

import json
import os
import signal
import subprocess
import sys

import pytest

from deepfill_jax import trained, weights
from deepfill_jax.app import __main__ as command
from deepfill_jax.app import hosts
from deepfill_jax.app.registry import available
from deepfill_jax.errors import UsageError

pytest_plugins = ["app_fixtures"]


def ended(capsys, *arguments):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        command.main(list(arguments))
    assert signal.getsignal(signal.SIGTERM) == handler
    return end.value.code, *capsys.readouterr()


def test_invalid_arguments_are_refused(capsys, tmp_path, model, monkeypatch):
    monkeypatch.setattr(trained, "FOLDER", tmp_path / "none")
    weights.save(tmp_path / "a.safetensors", model)
    named = ["--model", f"{tmp_path / 'a.safetensors'}"]
    code, out, err = ended(capsys, "--port", "0")
    assert code == 2 and out == ""
    assert err.endswith("\nerror: There is no bundled model; name a model with --model.\n")
    assert "There is no model file absent" in ended(capsys, "--port", "0", "--model", "absent")[2]
    assert "not from 0 to 65535" in ended(capsys, *named, "--port", "70000")[2]
    import socket

    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        code, _, err = ended(capsys, *named, "--port", f"{port}")
    assert code == 2
    assert f"Port {port} of 127.0.0.1 is not available: Address already in use" in err


def test_two_models_of_the_same_name_are_refused(tmp_path, model):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        weights.save(tmp_path / name / "a.safetensors", model)
    paths = [str(tmp_path / name / "a.safetensors") for name in ("x", "y")]
    with pytest.raises(UsageError, match="Two models have the name a"):
        available(paths)
    assert list(available(paths[:1])) == ["a"]


def test_missing_gradio_is_reported_with_the_extra_to_install():
    code = """
import sys
sys.modules["gradio"] = None
from deepfill_jax.app.__main__ import main
main(["--model", "absent"])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[1:] == [
        "error: The web UI needs gradio: pip install 'deepfill_jax[app]'."
    ]


OPENING = """
import json, os, sys, time
import uvicorn
from deepfill_jax.app import __main__ as command
from deepfill_jax.app.worker import Worker

opened = []
Worker.start = lambda worker: None
command.webbrowser.open = opened.append
uvicorn.Server.run = lambda *_, **__: time.sleep(0.5)  # Until the thread has opened the browser.
for display, arguments in json.loads(sys.argv[1]):
    os.environ["DISPLAY"] = display
    command.main(arguments)
    print(json.dumps(opened))
    opened.clear()

import jax
assert jax.config.jax_platforms == "cpu"  # The GPU is for the worker.
"""


def test_command_says_that_it_starts_and_opens_a_browser(tmp_path, model):
    weights.save(tmp_path / "a.safetensors", model)
    common = ["--model", f"{tmp_path / 'a.safetensors'}", "--port", "0"]
    runs = [
        *(
            (":0", common),
            (":0", [*common, "--no-browser"]),
            (":0", [*common, "--host", "0.0.0.0"]),
        ),
        ("", common),
    ]
    ran = subprocess.run(
        [sys.executable, "-c", OPENING, json.dumps(runs)],
        env={**os.environ, "WAYLAND_DISPLAY": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    out, err = ran.stdout.splitlines(), ran.stderr.splitlines()
    assert err.count("Starting, which takes some seconds. Press Ctrl+C to stop.") == len(runs)
    assert any("no password is set" in line for line in err)
    assert out[0].startswith("http://127.0.0.1:") and json.loads(out[1]) == [out[0]]
    assert out[3] == out[5] == out[7] == "[]"


def test_command_says_that_it_starts_before_it_imports_gradio(tmp_path):
    code = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("gradio", "jax"):
            sys.exit(f"imports {name}")
sys.meta_path.insert(0, Watch())
from deepfill_jax.app.__main__ import main
main(["--no-browser"])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stderr.splitlines() == [
        "Starting, which takes some seconds. Press Ctrl+C to stop.",
        "imports gradio",
    ]


def test_user_and_password_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("DEEPFILL_PASSWORD", "p")
    monkeypatch.setenv("DEEPFILL_USER", "u")
    options = command._parse(["--model", "a", "--model", "b"])
    assert (options.user, options.password, options.model) == ("u", "p", ["a", "b"])
    monkeypatch.delenv("DEEPFILL_PASSWORD")
    assert command._parse([]).password is None


def test_allowed_hosts_of_the_command():
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost", "192.168.1.5", "Machine"):
        assert hosts.allowed(host, ()) == {*hosts.LOOPBACK, host.lower()}
    for host in ("0.0.0.0", "::", ""):
        assert hosts.allowed(host, ()) == set()
        assert "localhost" in hosts.allowed(host, ("images.example",))
    options = command._parse(["--allow-host", "A.example", "--root-path", "/deepfill/"])
    assert (options.allow_host, options.root_path) == (["a.example"], "/deepfill")


@pytest.mark.parametrize(
    "argument, value",
    [
        ("--allow-host", "https://a.example"),
        ("--allow-host", "a.example:80"),
        ("--allow-host", "*.example"),
        ("--allow-host", "."),
        ("--root-path", "deepfill"),
        ("--root-path", "/a b"),
    ],
)
def test_wrong_hosts_and_paths_are_refused(capsys, argument, value):
    code, _, error = ended(capsys, argument, value)
    assert code == 2 and repr(value) in error
