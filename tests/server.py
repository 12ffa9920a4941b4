"""Runs the web UI's server in a separate process for tests."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from made import make_model

from deepfill_jax import weights


class Server:
    """A running server."""

    def __init__(self, process, url, temporary):
        self.process, self.url, self.temporary = process, url, temporary

    def workers(self):
        """Returns the ids of the server's worker processes."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        ids = [int(x) for path in children for x in path.read_text().split()]
        return [x for x in ids if b"spawn_main" in Path(f"/proc/{x}/cmdline").read_bytes()]

    def peak_bytes(self):
        """Returns the peak memory of the server and its worker processes."""
        return sum(map(peak_bytes, [self.process.pid, *self.workers()]))

    def temporary_files(self):
        """Returns the temporary files, except the lock and gradio's copies of the examples."""
        files = (x for x in self.temporary.rglob("*") if x.is_file())
        return [x for x in files if x.name != "lock" and not is_example(x)]

    def open_uploads(self):
        """Returns the open temporary files, which include the unnamed files of uploads."""
        links = Path(f"/proc/{self.process.pid}/fd").iterdir()
        targets = []
        for link in links:
            with contextlib.suppress(OSError):
                targets.append(str(link.readlink()))
        return [x for x in targets if x.startswith(str(self.temporary)) and "lock" not in x]


def peak_bytes(process_id):
    status = Path(f"/proc/{process_id}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def request_of(server, image, mask, **fields):
    """Returns a request to inpaint encoded files as bytes, and the server's address."""
    files = {"image": ("a.png", image), "mask": ("m.png", mask)}
    request = httpx.Request("POST", f"{server.url}/api/inpaint", files=files, data=fields)
    body = request.read()
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join(["POST /api/inpaint HTTP/1.1", *lines, "", ""])
    url = urlsplit(server.url)
    return head.encode() + body, (url.hostname, url.port)


def is_example(path):
    return path.stem in ("astronaut", "chelsea", "coffee")


@contextlib.contextmanager
def serve(folder, *options):
    """Serves a small network as the first model, "tiny"."""
    weights.save(folder / "tiny.safetensors", make_model("official"))
    temporary = folder / "temporary"
    temporary.mkdir()
    model = ["--model", str(folder / "tiny.safetensors")]
    errors = folder / "errors.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "deepfill_jax.app",
                "--port",
                "0",
                "--no-browser",
                *model,
                *options,
            ],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        yield Server(process, url.rstrip("/"), temporary)
        assert process.poll() is None  # The server must survive everything that the test did.
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert not any(x.is_file() for x in temporary.rglob("*"))
    stderr_text = errors.read_text()
    assert "Traceback" not in stderr_text, stderr_text
