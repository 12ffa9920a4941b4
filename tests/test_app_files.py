"""Tests of the temporary files of the web UI's server."""

import os
import subprocess
import sys

from deepfill_jax.app.folder import temporary_folder


def test_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    code = """
import os, sys
from deepfill_jax.app.folder import temporary_folder
with temporary_folder() as folder:
    (folder / "secret").mkdir()
    (folder / "secret/photo.png").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    killed, living = (process.stdout.readline().strip() for process in processes)
    (tmp_path / "deepfill_mine").mkdir()  # Has no lock: it is not a server's.
    processes[0].kill()
    processes[0].wait()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert not os.path.exists(killed) and os.path.exists(f"{living}/secret/photo.png")
        assert sorted(map(str, tmp_path.iterdir())) == sorted(
            [living, str(folder), str(tmp_path / "deepfill_mine")]
        )
    assert not folder.exists()
    processes[1].communicate()
    assert [x.name for x in tmp_path.iterdir()] == ["deepfill_mine"]
