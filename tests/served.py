"""The page, served by a process of its own."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from made import make_model

from deepfill_jax import weights


class Served:
    """A running server."""

    def __init__(self, process, url, temporary):
        self.process, self.url, self.temporary = process, url, temporary

    def peak_bytes(self):
        """The most memory that it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])

    def kept(self):
        """The files that it keeps, but for gradio's copies of the examples."""
        return [x for x in self.temporary.rglob("*") if x.is_file() and not is_example(x)]

    def uploads(self):
        """Files that it holds open, as those of requests are, which have no name."""
        links = Path(f"/proc/{self.process.pid}/fd").iterdir()
        targets = []
        for link in links:
            with contextlib.suppress(OSError):
                targets.append(str(link.readlink()))
        return [x for x in targets if x.startswith(str(self.temporary))]


def is_example(path):
    return path.stem in ("astronaut", "chelsea", "coffee")


@contextlib.contextmanager
def served(folder, *options):
    """Serves a small network, of model "tiny", which is the first."""
    weights.save(folder / "tiny.safetensors", make_model("official"))
    temporary = folder / "temporary"
    temporary.mkdir()
    model = ["--model", str(folder / "tiny.safetensors")]
    errors = folder / "errors.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "deepfill_jax.app", "--port", "0", *model, *options],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        yield Served(process, url.rstrip("/"), temporary)
        assert process.poll() is None  # It lives on after all that was done to it.
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert not any(x.is_file() for x in temporary.rglob("*"))
    told = errors.read_text()
    assert "Traceback" not in told, told
